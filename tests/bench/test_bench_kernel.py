"""`homomorph bench kernel` and how it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from homomorph_bench import kernel, kernel_summary
from homomorph_bench.results import Record
from homomorph_bench.timing import Timing, time_in_turns


def test_candidates_take_turns():
    calls: list[str] = []
    turns: list[int] = []
    candidates = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    time_in_turns(candidates, repeats=10, warm_up=1, turn_ms=0, report=lambda progress: turns.append(progress.done))
    assert calls[-4:] == ["a", "b", "a", "b"]
    assert turns == list(range(1, 12))


def test_too_few_repeats_are_refused():
    with pytest.raises(ValueError, match="at least 10"):
        time_in_turns({}, repeats=9, warm_up=0)


def run_kernel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `homomorph bench kernel`."""
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()", "bench", "kernel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def test_results_have_a_record_for_each_row(tmp_path: Path):
    result = run_kernel(
        "--out", str(tmp_path), "--quick", "--threads", "1", "--dtype", "float32", "--dtype", "bfloat16"
    )
    assert result.returncode == 0, result.stderr
    assert "against torch.baddbmm: geometric mean" in result.stdout
    assert (tmp_path / "kernel.png").stat().st_size > 10_000
    records = json.loads((tmp_path / "results.json").read_text())
    by_name = {record["name"]: record for record in records}
    cases, candidates = 2 * 2 * 2, 6
    assert len(by_name) == len(records) == cases * candidates
    for record in records:
        assert set(record) == {"name", "value", "unit", "baseline", "ratio", "spread", "meta"}
        assert record["ratio"] == pytest.approx(by_name[record["baseline"]]["value"] / record["value"])
        assert record["unit"] == "ms"
        assert "threads" not in record["meta"], "what all records share stands in the first one alone"
    environment = records[0]["meta"]["environment"]
    assert (environment["threads"], environment["repeats"]) == (1, 10)
    assert len((tmp_path / "results.json").read_text().splitlines()) == len(records) + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dtype", "int8"), "'int8' is not one of"),
        (("--features", "128x8"), "--features must be like 128x8x8"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    homomorph: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], message: str
):
    outcome = homomorph("bench", "kernel", "--out", tmp_path, *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_memory_is_measured_beyond_the_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "COPIED_BYTES", (1 << 19, 1 << 20))
    case = kernel.Case(branches=2, steps=3, features=(16, 8, 8), dtype="float32", layout="channels_last", batch=2)
    assert case.memory_bytes(2) == 2 * (1 + 2 + 3) * 16 * 8 * 8 * 4
    records = {record.name: record for record in kernel.measure_memory(case, repeats=10)}
    operator, copied = records[f"memory of {kernel.OPERATOR}, {case}"], records[f"memory of {kernel.COPY}, {case}"]
    assert operator.meta["gigabytes_per_second"] == pytest.approx(1e3 / operator.value)
    assert (operator.meta["bytes"], copied.meta["bytes"]) == (case.memory_bytes(2), 2 << 20)
    assert records[f"memory of {kernel.ONE_HOT}, {case}"].meta["bytes"] == case.memory_bytes(1)
    assert (operator.unit, operator.baseline) == ("ms/GB", copied.name)
    assert operator.ratio == pytest.approx(copied.value / operator.value)


def test_batches_are_twice_as_large_as_the_cache():
    case = kernel.Case(branches=12, steps=1, features=(256, 32, 32), dtype="float32", layout="contiguous")
    larger = case.larger_than_cache(100 << 20)
    assert larger.memory_bytes(1) >= 200 << 20 > larger.memory_bytes(1) * (larger.batch - 1) / larger.batch
    assert str(larger).startswith(f"B={larger.batch} K=12 ")
    assert case.larger_than_cache(0).batch == 1
    assert 1.4e9 < case.larger_than_cache(1 << 40).memory_bytes(12) <= 1.5e9, "no more memory than that"


def test_the_cache_is_as_large_as_the_copies_that_it_makes_faster(monkeypatch: pytest.MonkeyPatch):
    gigabytes_per_second = {1 << 20: 100.0, 1 << 21: 60.0, 1 << 22: 30.0, 1 << 23: 25.0}
    monkeypatch.setattr(kernel, "COPIED_BYTES", tuple(gigabytes_per_second))

    def time(candidates: object, device: str, repeats: int) -> dict[str, Timing]:
        return {
            f"copy_ of {size >> 20} MiB": Timing(2 * size / rate / 1e6, 0.0)
            for size, rate in gigabytes_per_second.items()
        }

    monkeypatch.setattr(kernel, "_time_candidates", time)
    copies = kernel.measure_copies(repeats=10)
    assert [record.meta["gigabytes_per_second"] for record in copies] == pytest.approx([100, 60, 30, 25])
    assert kernel.cache_bytes(copies) == 4 << 20, "both of its tensors count"
    assert kernel.cache_bytes(copies[-2:]) == 0
    for record in copies:
        record.meta["l2_bytes"] = 50 << 20
    assert kernel.cache_bytes(copies) == 50 << 20, "what a GPU says of itself, where copies show less"


def test_small_cases_are_counted_apart():
    def timings(size: str, call_ms: float, one_hot: float) -> list[Record]:
        def record(name: str, value: float, ratio: float, **meta: float) -> Record:
            return Record(f"{name}, {size}", value, "ms", "", ratio, 0.0, dict(meta))

        return [
            record(kernel.OPERATOR, 2.0, 1.5),
            *(record(name, 3.0, 1.0) for name in (kernel.BASELINE, kernel.EINSUM, kernel.LOOP)),
            record(kernel.ONE_HOT, 1.0, one_hot, ratio_of_bytes=2.0),
            record(kernel.CALL, call_ms, 1.0),
        ]

    figures = kernel_summary.summarise([*timings("small", 0.6, 1.0), *timings("large", 0.1, 2.0)])
    name = "one-hot against dense, per ratio of bytes"
    assert figures[f"{name}: least"] == pytest.approx(0.5)
    assert figures[f"{name}, where a call is less than 20% of it: least"] == pytest.approx(1.0)
    assert figures["a call's share of one-hot: most"] == pytest.approx(0.6)
    assert figures["against the best of three: slowest case"] == pytest.approx(1.5)


def test_the_matrix_is_the_one_that_is_documented():
    cases = kernel.Matrix().cases()
    assert len(set(cases)) == len(cases) == 3 * 4 * 3 * 3 * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_measures_a_gpu_by_its_own_clock(tmp_path: Path):
    result = run_kernel("--out", str(tmp_path), "--quick", "--device", "cuda")
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "results.json").read_text())
    assert records[0]["meta"]["environment"]["device"] == torch.cuda.get_device_name("cuda")
