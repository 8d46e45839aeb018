"""Build the library of `request_guard.c`, which refuses requests that would crash a model's process."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from homomorph_client.files import cache_folder

_LOGGER = logging.getLogger(__name__)
_SOURCE = "request_guard.c"
_LIBRARY_FILE = "librequest_guard.so"
_BUILD_TIMEOUT_S = 120.0
"""Longest time of the compiler, which usually takes a second."""


def build_guard() -> Path | None:
    """Return the library, compiled once and kept in the user's cache; without a compiler, warn and return None.

    A server without it works. But some malformed requests crash its models' processes, and the list of processes shows
    the keys of its restricted calls.
    """
    source = resources.files("homomorph_export.serving") / _SOURCE
    text = source.read_bytes()
    digest = hashlib.sha256(platform.machine().encode() + text).hexdigest()[:16]
    library = cache_folder() / "guard" / digest / _LIBRARY_FILE
    if library.exists():
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        # Build in a temporary folder and rename, so that no other process loads an incomplete file.
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch, resources.as_file(source) as path:
            built = Path(scratch) / _LIBRARY_FILE
            words = [*_compiler(), "-O2", "-shared", "-fPIC", "-o", str(built), str(path), "-ldl"]
            subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                text=True,
                timeout=_BUILD_TIMEOUT_S,
            )
            built.replace(library)
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        reason = (said or str(error)).strip().splitlines()[-1]
        _LOGGER.warning("the server runs without its request guard, which a C compiler builds (%s)", reason)
        return None
    return library


def _compiler() -> list[str]:
    if "CC" in os.environ:
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise FileNotFoundError("no C compiler was found: install gcc or clang, or name yours in CC")
