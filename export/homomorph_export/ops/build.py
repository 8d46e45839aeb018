"""Builds the operator's library with CMake and the machine's compilers:

    python -m homomorph_export.ops.build

The CPU kernels need a C++ compiler. The CUDA kernel is compiled too where torch itself was built for CUDA and nvcc is
there (see `homomorph_export.ops.nvcc`); whether the machine has a GPU makes no difference.

The library uses libtorch's stable ABI, so one build serves torch 2.10 and every later one, and it is free of Python, so
that a server can load it too. It lies in the user's cache, under a name made from its sources, from this file, and from
the CUDA compiler if there is one. After a change to one of them the name is new, and the library is built again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch

from homomorph_client.errors import OutputError
from homomorph_client.files import replacing
from homomorph_export.errors import OperatorError
from homomorph_export.ops.nvcc import Nvcc, find_nvcc

LIBRARY_FILE = "libhomomorph_ops.so"

SOURCES = Path(str(resources.files("homomorph_export"))) / "csrc"
"""The folder of CMakeLists.txt and of the sources."""


def library_path() -> Path:
    """Return where the library of this version's sources is, or would be after a build."""
    digest = hashlib.sha256(platform.machine().encode())
    digest.update(str(find_nvcc()).encode())
    for path in (Path(__file__), *sorted(SOURCES.iterdir())):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "homomorph" / "ops" / digest.hexdigest()[:16] / LIBRARY_FILE


def build() -> Path:
    """Build the library unless it is built already, and return its path.

    Raises:
        OperatorError: CMake, Ninja or the C++ compiler is missing, a compiler failed, or the cache cannot be written.
    """
    path = library_path()
    if path.exists():
        return path
    try:
        with replacing(path) as built, tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            nvcc = find_nvcc()
            try:
                compile_with_cmake(Path(scratch), _cuda_options(nvcc))
            except OperatorError as error:
                if nvcc is None:
                    raise
                raise OperatorError(
                    f"{error} (with {nvcc.path}; an empty CUDACXX leaves the CUDA kernel out)"
                ) from error
            (Path(scratch) / LIBRARY_FILE).replace(built)
    except (OSError, OutputError) as error:
        raise OperatorError(f"the operator's library cannot be built into {path.parent}: {error}") from error
    return path


def compile_with_cmake(folder: Path, options: Mapping[str, str]) -> None:
    """Compile the sources.

    Args:
        folder: CMake's build folder.
        options: CMake's variables, beside the ones that are always needed.

    Raises:
        OperatorError: CMake, Ninja or the C++ compiler is missing, or a compiler failed.
    """
    cmake, ninja = find_tool("cmake"), find_tool("ninja")
    variables = {"CMAKE_MAKE_PROGRAM": ninja, "TORCH_FOLDER": str(Path(torch.__file__).parent), **options}
    definitions = [f"-D{name}={value}" for name, value in variables.items()]
    environment = {**os.environ, "CXX": shlex.join(find_compiler())}
    _run([cmake, "-G", "Ninja", "-S", str(SOURCES), "-B", str(folder), *definitions], environment)
    _run([cmake, "--build", str(folder)], environment)


def find_tool(name: str) -> str:
    """Return the path of cmake or ninja: the one beside this Python, where pip puts it, else the one on the PATH.

    Raises:
        OperatorError: there is none.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise OperatorError(f"{name} was not found for the operator's library: `pip install {name}` brings it")
    return found


def find_compiler() -> list[str]:
    """Return the C++ compiler's command: `CXX` if it is set, else c++, g++ or clang++.

    Raises:
        OperatorError: there is none.
    """
    if "CXX" in os.environ:
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise OperatorError(
        "no C++ compiler was found for the operator's library: install one (Debian and Ubuntu: `apt install g++`), "
        "or name yours in the environment variable CXX"
    )


def _cuda_options(nvcc: Nvcc | None) -> dict[str, str]:
    if nvcc is None:
        return {"HOMOMORPH_CUDA": "OFF"}
    return {
        "HOMOMORPH_CUDA": "ON",
        "CMAKE_CUDA_COMPILER": str(nvcc.path),
        "CMAKE_CUDA_ARCHITECTURES": ";".join(nvcc.architectures),
    }


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        output = result.stdout + result.stderr
        lines = [line.strip() for line in output.splitlines() if "error" in line.lower()] or [output[-500:]]
        raise OperatorError(f"the operator's library could not be compiled: {lines[0]}")


if __name__ == "__main__":
    print(build())
