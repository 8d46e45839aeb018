"""The library of `request_guard.c`: refuses requests that crash a model's process or break its limits; hides keys."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from homomorph_client.errors import OutputError
from homomorph_client.files import cache_folder, replacing

_LOGGER = logging.getLogger(__name__)
_SOURCE = "request_guard.c"
_LIBRARY_FILE = "librequest_guard.so"
_BUILD_TIMEOUT_S = 120.0
"""Longest time of the compiler, which usually takes a second."""


def build_guard() -> Path | None:
    """Return the library, compiled once and kept in the user's cache; without a compiler, warn and return None.

    A server without it works. But some malformed requests crash its models' processes, only the Python flavour checks
    sizes and values, and the list of processes shows the keys of its restricted calls.
    """
    source = resources.files("homomorph_export.serving") / _SOURCE
    text = source.read_bytes()
    digest = hashlib.sha256(platform.machine().encode() + text).hexdigest()[:16]
    library = cache_folder() / "guard" / digest / _LIBRARY_FILE
    if library.exists():
        return library
    try:
        with replacing(library) as built, resources.as_file(source) as path:
            words = [*_compiler(), "-O2", "-shared", "-fPIC", "-o", str(built), str(path), "-ldl"]
            subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                text=True,
                timeout=_BUILD_TIMEOUT_S,
            )
    except (OSError, OutputError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        reason = (said or str(error)).strip().splitlines()[-1]
        _LOGGER.warning("the server runs without its request guard, which a C compiler builds (%s)", reason)
        return None
    return library


def hide(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Move the values of arguments into environment variables, from which the library takes them.

    Other users can read a process's arguments but not its environment. A tritonserver that runs without the library
    gets no values. It refuses such restrictions and ends, so it is never open to others.

    Args:
        arguments: words such as `--option=value`.

    Returns:
        The words, such as `--option=@HOMOMORPH_ARGUMENT_0`, and the environment variables.
    """
    hidden, environment = [], {}
    for number, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        name = f"HOMOMORPH_ARGUMENT_{number}"
        hidden.append(f"{option}=@{name}")
        environment[name] = value
    return hidden, environment


def _compiler() -> list[str]:
    if "CC" in os.environ:
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise FileNotFoundError("no C compiler was found: install gcc or clang, or name yours in CC")
