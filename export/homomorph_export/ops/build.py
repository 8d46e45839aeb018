"""Builds the operator's library with the machine's C++ compiler:

    python -m homomorph_export.ops.build

The library uses libtorch's stable ABI, so one build serves torch 2.10 and every later one, and it is free of Python, so
that a server can load it too. It lies in the user's cache, under a name made from its sources and from this file:
what changes them makes it a library that is not built yet.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import torch

from homomorph_export.errors import OperatorError

LIBRARY_FILE = "libhomomorph_ops.so"

_SOURCES = ("binding.cpp", "interpolate.cpp")
_HEADERS = ("interpolate.h",)
_TARGET_TORCH = "0x020a000000000000"  # 2.10, as the headers' TORCH_TARGET_VERSION writes it
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wall",
    f"-DTORCH_TARGET_VERSION={_TARGET_TORCH}",
)
# No rpath and no -ltorch: whoever loads the library has libtorch_cpu in the process already, or on its library path.
_LIBRARIES = ("-ltorch_cpu", "-lc10")


def library_path() -> Path:
    """Return where the library of this version's sources is, or would be after a build."""
    digest = hashlib.sha256(platform.machine().encode())
    for path in (Path(__file__), *(_source_folder() / name for name in (*_SOURCES, *_HEADERS))):
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "homomorph" / "ops" / digest.hexdigest()[:16] / LIBRARY_FILE


def build() -> Path:
    """Build the library unless it is built already, and return its path.

    Raises:
        OperatorError: there is no C++ compiler, it failed, or the cache cannot be written.
    """
    path = library_path()
    if path.exists():
        return path
    torch_folder = Path(torch.__file__).parent
    compiler = find_compiler()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Built aside and renamed, so that several builds at once do not load each other's halves.
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            built = Path(scratch) / LIBRARY_FILE
            command = [
                *compiler,
                *_FLAGS,
                *("-isystem", str(torch_folder / "include")),
                # The headers' checks name their file: without this machine's folders every build has the same bytes.
                f"-ffile-prefix-map={torch_folder}=torch",
                *(str(_source_folder() / name) for name in _SOURCES),
                *("-L", str(torch_folder / "lib"), *_LIBRARIES, "-o", str(built)),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                lines = [line for line in result.stderr.splitlines() if "error" in line] or [result.stderr[-500:]]
                raise OperatorError(f"{compiler[0]} could not build the operator's library: {lines[0]}")
            built.replace(path)
    except OSError as error:
        raise OperatorError(f"the operator's library cannot be built into {path.parent}: {error}") from error
    return path


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


def _source_folder() -> Path:
    return Path(str(resources.files("homomorph_export"))) / "csrc"


if __name__ == "__main__":
    print(build())
