"""Building the operator's library."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from homomorph_export.errors import OperatorError
from homomorph_export.ops.build import SOURCES, build, find_compiler, find_tool, library_path
from homomorph_export.ops.library import is_loaded, load_library
from homomorph_export.ops.nvcc import find_nvcc

TORCH_LIBRARIES = ("libtorch_cpu.so", "libc10.so")


def test_library_is_free_of_python_and_of_this_machine():
    content = build().read_bytes()
    assert b"libtorch_cpu.so" in content
    assert b"libtorch_python" not in content
    for folder in (Path(torch.__file__).parent, SOURCES):
        assert str(folder).encode() not in content, "an rpath or a source path of this machine"
    assert b"libcudart.so" not in content, "a CUDA runtime that must be there before it loads"


def test_what_it_needs_is_in_every_torch():
    """A torch without CUDA has these two libraries, and of libtorch_cuda nothing may be asked for by name."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm, which lists a library's symbols, is not installed")
    undefined = subprocess.run([nm, "-D", "--undefined-only", build()], capture_output=True, text=True, check=True)
    defined = subprocess.run(
        [nm, "-D", "--defined-only", *(Path(torch.__file__).parent / "lib" / name for name in TORCH_LIBRARIES)],
        capture_output=True,
        text=True,
        check=True,
    )
    provided = set(re.findall(r" [TWVBD] (\w+)$", defined.stdout, re.MULTILINE))
    wanted = set(re.findall(r" U (\w*torch_\w+|cu[A-Z]\w+|cuda\w+)$", undefined.stdout, re.MULTILINE))
    assert wanted
    assert wanted <= provided


def test_holds_a_cuda_kernel_where_torch_and_nvcc_do():
    load_library(build())
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key("homomorph::interpolate", "CUDA")
    assert has_kernel == (find_nvcc() is not None)


def test_a_second_load_is_harmless():
    load_library(build())
    load_library(build())
    assert is_loaded()


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match=r"apt install g\+\+"):
        find_compiler()


@pytest.mark.parametrize("name", ["cmake", "ninja"])
def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(OperatorError, match=f"pip install {name}"):
        find_tool(name)


@pytest.mark.parametrize("command", ["false", "/no/such/compiler"])
def test_a_failing_compiler_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", command)
    with pytest.raises(OperatorError):
        build()
    assert library_path().is_relative_to(tmp_path)
    assert not list(library_path().parent.iterdir())


def fake_nvcc(folder: Path, release: str, architectures: str) -> Path:
    """Write a program that answers as nvcc does."""
    path = folder / "nvcc"
    answers = f"Cuda compilation tools, release {release}, V{release}.1\n{architectures}"
    path.write_text(f"#!/bin/sh\ncat <<END\n{answers}\nEND\n")
    path.chmod(0o755)
    return path


def test_nvcc_is_used_by_what_torch_was_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = fake_nvcc(tmp_path, "12.4", "compute_80\ncompute_86\ncompute_87\ncompute_90")
    monkeypatch.setenv("CUDACXX", str(path))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    nvcc = find_nvcc()
    assert nvcc is not None
    assert (nvcc.path, nvcc.version, nvcc.architectures) == (path, "12.4", ("80", "86-real", "90"))
    with_cuda = library_path()

    monkeypatch.setattr(torch.version, "cuda", "11.8")
    assert find_nvcc() is None, "newer than the CUDA that torch was built for"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert find_nvcc() is None
    assert library_path() != with_cuda


@pytest.mark.parametrize("named", ["", "/no/such/nvcc"])
def test_without_nvcc_there_is_none(monkeypatch: pytest.MonkeyPatch, named: str):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDACXX", named)
    assert find_nvcc() is None
