"""`homomorph bench kernel` and how it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from homomorph_bench import kernel
from homomorph_bench.timing import time_in_turns


def test_candidates_take_turns():
    calls: list[str] = []
    turns: list[int] = []
    candidates = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    time_in_turns(candidates, repeats=10, warm_up=1, turn_ms=0, report=turns.append)
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
    cases, candidates = 2 * 2 * 2, 5
    assert len(by_name) == len(records) == cases * candidates
    for record in records:
        assert set(record) == {"name", "value", "unit", "baseline", "ratio", "spread", "meta"}
        assert record["ratio"] == pytest.approx(by_name[record["baseline"]]["value"] / record["value"])
        assert (record["unit"], record["meta"]["threads"], record["meta"]["repeats"]) == ("ms", 1, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dtype", "int8"), "--dtype must be float32"),
        (("--features", "128x8"), "--features must be like 128x8x8"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, arguments: tuple[str, ...], message: str):
    result = run_kernel("--out", str(tmp_path), *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_memory_is_measured_beyond_the_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "last_level_cache_bytes", lambda device: 0)
    case = kernel.Case(branches=2, steps=3, features=(16, 8, 8), dtype="float32", layout="contiguous")
    assert case.bytes(2) == (1 + 2 + 3) * 16 * 8 * 8 * 4
    records = {record.name: record for record in kernel.measure(case, repeats=10)}
    operator, copied = records[f"memory of {kernel.OPERATOR}, {case}"], records[f"memory of {kernel.COPY}, {case}"]
    seconds = records[f"{kernel.OPERATOR}, {case}"].value / 1e3
    assert operator.meta["gigabytes_per_second"] == pytest.approx(case.bytes(2) / 1e9 / seconds)
    assert (operator.unit, operator.baseline) == ("ms/GB", copied.name)
    assert operator.ratio == pytest.approx(copied.value / operator.value)


def test_the_matrix_is_the_one_that_is_documented():
    cases = kernel.Matrix().cases()
    assert len(set(cases)) == len(cases) == 3 * 4 * 3 * 3 * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_measures_a_gpu_by_its_own_clock(tmp_path: Path):
    result = run_kernel("--out", str(tmp_path), "--quick", "--device", "cuda")
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "results.json").read_text())
    assert records[0]["meta"]["device"] == torch.cuda.get_device_name("cuda")
