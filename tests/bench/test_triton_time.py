"""The parts of a request's time, from Triton's counters."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest

from homomorph_bench.serving import triton_time
from homomorph_bench.serving.load_generator import RequestFailed


def test_time_is_divided_without_rest() -> None:
    ms = 1_000_000
    counted: triton_time.Counts = Counter(
        {
            ("morph", "requests"): 10,
            ("morph", "total"): 200 * ms,
            ("morph", "compute_infer"): 150 * ms,  # an ensemble repeats what its members did
            ("decoder", "requests"): 10,
            ("decoder", "executions"): 5,
            ("decoder", "queue"): 30 * ms,
            ("decoder", "compute_infer"): 150 * ms,
        }
    )
    parts_ms = triton_time.split_request_time(counted, mean_ms=22)
    assert parts_ms["network"] == pytest.approx(2)
    assert parts_ms["decoder queue"] == pytest.approx(3)
    assert parts_ms["decoder compute_infer"] == pytest.approx(15)
    assert parts_ms["scheduling"] == pytest.approx(2)
    assert sum(parts_ms.values()) == pytest.approx(22)
    assert triton_time.batch_sizes(counted) == {"decoder": 2}


def test_time_of_a_model_that_is_no_ensemble() -> None:
    counted: triton_time.Counts = Counter(
        {
            ("morph", "requests"): 1,
            ("morph", "executions"): 1,
            ("morph", "total"): 5_000_000,
            ("morph", "compute_infer"): 4_000_000,
        }
    )
    parts_ms = triton_time.split_request_time(counted, mean_ms=6)
    assert parts_ms["morph compute_infer"] == pytest.approx(4)
    assert (parts_ms["network"], parts_ms["scheduling"]) == (pytest.approx(1), pytest.approx(1))


def test_what_triton_counts_after_the_answer_is_no_part_of_the_time() -> None:
    ms = 1_000_000
    counted: triton_time.Counts = Counter(
        {
            ("morph", "requests"): 2,
            ("morph", "total"): 22 * ms,
            ("morpher", "requests"): 2,
            ("morpher", "executions"): 2,
            ("morpher", "compute_infer"): 18 * ms,
            ("morpher", "compute_output"): 2 * ms,
        }
    )
    parts_ms = triton_time.split_request_time(counted, mean_ms=10.4)
    assert parts_ms["network"] == 0
    assert parts_ms["morpher compute_output"] == pytest.approx(0.4), "0.6 of it came after the answer"
    assert sum(parts_ms.values()) == pytest.approx(10.4)
    parts_ms = triton_time.split_request_time(counted, mean_ms=9.5)
    assert parts_ms["morpher compute_output"] == 0
    assert sum(parts_ms.values()) == pytest.approx(9.5)
    parts_ms = triton_time.split_request_time(counted, mean_ms=8.1)
    assert min(parts_ms.values()) == 0, "no part is negative"
    assert parts_ms["morpher compute_infer"] == pytest.approx(8.1), "of 9: all that is left of it"


def test_models_that_ran_at_the_same_time_share_it() -> None:
    counted: triton_time.Counts = Counter({("morph", "requests"): 1, ("morph", "total"): 4_000_000})
    for branch in ("branch_hair", "branch_glasses"):
        counted |= Counter({(branch, "executions"): 1, (branch, "compute_infer"): 4_000_000})
    parts_ms = triton_time.split_request_time(counted, mean_ms=5)
    assert parts_ms["branch_hair compute_infer"] == parts_ms["branch_glasses compute_infer"] == pytest.approx(2)
    assert sum(parts_ms.values()) == pytest.approx(5)


def test_a_request_that_took_no_time_in_the_server() -> None:
    parts_ms = triton_time.split_request_time(Counter({("morph", "requests"): 1}), mean_ms=5)
    assert parts_ms["network"] == sum(parts_ms.values()) == 5


def test_statistics_of_a_server_that_is_gone() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RequestFailed, match="Triton's statistics"):
            asyncio.run(triton_time.read_counts(nobody, nobody))
