"""`homomorph bench kernel` and how it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_results_have_a_record_for_each_row(tmp_path: Path):
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()", "bench", "kernel"]
    arguments = ["--out", str(tmp_path), "--repeats", "10", "--threads", "1"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "results.json").read_text())
    by_name = {record["name"]: record for record in records}
    assert len(by_name) == len(records) == 9
    for record in records:
        assert set(record) == {"name", "value", "unit", "baseline", "ratio", "spread", "meta"}
        assert record["ratio"] == pytest.approx(by_name[record["baseline"]]["value"] / record["value"])
        assert (record["unit"], record["meta"]["threads"], record["meta"]["repeats"]) == ("ms", 1, 10)
