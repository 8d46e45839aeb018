"""A separate folder for pip's Triton, used if it cannot be installed into this environment.

nvidia-pytriton's Python backend needs numpy 1; training and export work with numpy 2. The folder holds nvidia-pytriton
and numpy 1 only. The server's processes import these two from the folder, and all other packages, such as torch, from
this environment. `homomorph serve` creates the folder when it is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from homomorph_client.errors import ServerError
from homomorph_client.files import cache_folder, replacing

REQUIREMENTS = ("nvidia-pytriton==0.7.0", "numpy>=1.26,<2")
FOLDER_VARIABLE = "HOMOMORPH_TRITON"
"""Environment variable with the folder's path."""
_INSTALL_TIMEOUT_S = 3600.0
"""Longest time of an installation, enough for 21 kB/s."""


def triton_folder() -> Path:
    """Return the folder's path, whether it exists or not: in the user's cache, one for each version of Python."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    return cache_folder() / f"triton-python{sys.version_info.major}.{sys.version_info.minor}"


def make_triton_folder() -> Path:
    """Install `REQUIREMENTS` into the folder, all or nothing; downloads about 75 MB.

    Raises:
        ServerError: pip cannot install them, for example because numpy 1 does not support this Python, or takes longer
            than `_INSTALL_TIMEOUT_S`.
        OutputError: the folder cannot be written.
    """
    folder = triton_folder()
    with replacing(folder) as partial:
        # Dependencies come from this environment. Only wheels are installed, so that no compiler is needed.
        # Nobody would see a question, such as the one for the password of a package index.
        words = ["--target", str(partial), "--no-deps", "--only-binary=:all:", "--no-input", "--quiet", *REQUIREMENTS]
        try:
            pip = subprocess.run(
                [sys.executable, "-m", "pip", "install", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_INSTALL_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            limit = f"{_INSTALL_TIMEOUT_S:g} s"
            raise ServerError(f"Triton could not be installed into {folder} within {limit}") from error
        if pip.returncode:
            lines = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise ServerError(f"Triton could not be installed into {folder}: {lines[-1]}")
    return folder
