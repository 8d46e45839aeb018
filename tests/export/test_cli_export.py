"""`homomorph export` as a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def homomorph(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_export_says_what_it_wrote(run: Path, tmp_path: Path):
    result = homomorph("export", run, "--repository", tmp_path / "repository", "--precision", "fp32", "--threads", "1")
    assert result.returncode == 0, result.stderr
    assert "sliders: hair, glasses, residual" in result.stdout
    assert "parity" in result.stdout
    config = (tmp_path / "repository" / "decoder" / "config.pbtxt").read_text()
    assert 'key: "intra_op_threads"\n  value {\n    string_value: "1"' in config


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path):
    for name in ("one", "two"):
        assert homomorph("export", run, "--repository", tmp_path / name).returncode == 0
    files = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert len(files) > 30
    assert [name for name, path in files.items() if (tmp_path / "two" / name).read_bytes() != path.read_bytes()] == []


def test_no_such_run_is_one_line_and_code_2(tmp_path: Path):
    result = homomorph("export", tmp_path / "nowhere", "--repository", tmp_path / "repository")
    assert result.returncode == 2
    assert result.stderr.startswith("homomorph: no run at ")
    assert result.stderr.count("\n") == 1


def test_unknown_precision_is_code_2(run: Path, tmp_path: Path):
    result = homomorph("export", run, "--repository", tmp_path / "repository", "--precision", "fp8")
    assert result.returncode == 2
    assert "fp32" in result.stderr
