"""Finds the CUDA compiler that suits the installed torch."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_ARCHITECTURES = ("80", "86", "89", "90", "100", "120")
"""Machine code is compiled for these, and PTX for the first and the last. Other devices compile the PTX at load."""


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler."""

    path: Path
    version: str
    architectures: tuple[str, ...]
    """Architectures to compile for, as CMake writes them."""


def find_nvcc() -> Nvcc | None:
    """Return the compiler, or None where torch was built without CUDA or no compiler suits it.

    Looks at `CUDACXX`, `CUDA_HOME`, /usr/local/cuda, the PATH, and pip's nvidia-cuda-nvcc, in this order. Skips a
    compiler of a newer major version than torch's CUDA, because the driver may be too old for its output. An empty
    `CUDACXX` means no compiler.
    """
    if torch.version.cuda is None or os.environ.get("CUDACXX") == "":
        return None
    major = int(torch.version.cuda.partition(".")[0])
    for path in _candidates():
        nvcc = _inspect(path)
        if nvcc is not None and int(nvcc.version.partition(".")[0]) <= major:
            return nvcc
    return None


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("CUDACXX"):
        yield Path(shutil.which(named) or named)
        return
    for folder in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if folder:
            yield Path(folder) / "bin" / "nvcc"
    if on_path := shutil.which("nvcc"):
        yield Path(on_path)
    yield from sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvcc"))


@functools.cache
def _inspect(path: Path) -> Nvcc | None:
    """Return the compiler at a path; None if it does not run or supports none of the architectures."""
    try:
        release = _ask(path, "--version")
        known = re.findall(r"compute_(\d+)", _ask(path, "--list-gpu-arch"))
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"release (\d+\.\d+)", release)
    supported = [architecture for architecture in _ARCHITECTURES if architecture in known]
    if version is None or not supported:
        return None
    with_ptx = (supported[0], supported[-1])
    architectures = (name if name in with_ptx else f"{name}-real" for name in supported)
    return Nvcc(path, version[1], tuple(architectures))


def _ask(path: Path, option: str) -> str:
    return subprocess.run([str(path), option], capture_output=True, text=True, check=True).stdout
