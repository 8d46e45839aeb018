"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from homomorph_export.ops.build import compile_with_cmake


@pytest.mark.slow
def test_the_kernels_stay_within_bounds_and_the_language(tmp_path: Path):
    program = Path(__file__).with_name("sanitized.cpp")
    compile_with_cmake(tmp_path, {"HOMOMORPH_SANITIZED_PROGRAM": str(program)})
    result = subprocess.run([tmp_path / "sanitized"], capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert "baseline: right" in result.stdout
