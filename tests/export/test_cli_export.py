"""`homomorph export` as a command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_export_says_what_it_wrote(homomorph: Callable[..., Any], run: Path, tmp_path: Path):
    words = ["--repository", tmp_path / "repository", "--precision", "fp32", "--threads", "1", "--no-onnx"]
    outcome = homomorph("export", run, *words)
    assert outcome.code == 0, outcome.err
    assert "sliders: hair, glasses, residual" in outcome.out
    assert "parity" in outcome.out
    assert outcome.out.count("torch 2.11 deprecates TorchScript") == 1
    config = (tmp_path / "repository" / "decoder" / "config.pbtxt").read_text()
    assert 'key: "intra_op_threads"\n  value {\n    string_value: "1"' in config


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path):
    # Within one process TorchScript would number its classes on.
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()", "export", str(run), "--repository"]
    exports = [subprocess.Popen([*command, str(tmp_path / name)]) for name in ("one", "two")]
    assert [export.wait(timeout=120) for export in exports] == [0, 0]
    files = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert len(files) > 30
    assert [name for name, path in files.items() if (tmp_path / "two" / name).read_bytes() != path.read_bytes()] == []


def test_no_such_run_is_one_line_and_code_2(homomorph: Callable[..., Any], tmp_path: Path):
    outcome = homomorph("export", tmp_path / "nowhere", "--repository", tmp_path / "repository")
    assert outcome.code == 2
    assert outcome.err.startswith("homomorph: no run at ")
    assert outcome.err.count("\n") == 1


def test_unknown_precision_is_code_2(homomorph: Callable[..., Any], run: Path, tmp_path: Path):
    outcome = homomorph("export", run, "--repository", tmp_path / "repository", "--precision", "fp8")
    assert outcome.code == 2
    assert "fp32" in outcome.err
