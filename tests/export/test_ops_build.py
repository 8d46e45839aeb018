"""Building the operator's library."""

from __future__ import annotations

from pathlib import Path

import pytest

from homomorph_export.errors import OperatorError
from homomorph_export.ops.build import build, find_compiler, library_path
from homomorph_export.ops.library import is_loaded, load


def test_library_is_free_of_python_and_of_this_machine():
    content = build().read_bytes()
    assert b"libtorch_cpu.so" in content
    assert b"libtorch_python" not in content
    assert b"site-packages" not in content, "an rpath or a source path of this machine"


def test_a_second_load_is_harmless():
    load(build())
    load(build())
    assert is_loaded()


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match=r"apt install g\+\+"):
        find_compiler()


@pytest.mark.parametrize("command", ["false", "/no/such/compiler"])
def test_a_failing_compiler_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", command)
    with pytest.raises(OperatorError):
        build()
    assert library_path().is_relative_to(tmp_path)
    assert not list(library_path().parent.iterdir())
