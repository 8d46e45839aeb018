"""A folder of its own for the Triton of pip, where this environment cannot hold it.

nvidia-pytriton's Python backend needs numpy 1, and training and export take numpy 2. The folder holds nvidia-pytriton
and numpy 1, nothing else. The server's processes look into it before this environment's packages, and take all else,
such as torch, from here. `homomorph serve` makes it when it is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from homomorph_client.errors import ServerError
from homomorph_client.files import replacing

REQUIREMENTS = ("nvidia-pytriton==0.7.0", "numpy>=1.26,<2")
FOLDER_VARIABLE = "HOMOMORPH_TRITON"
"""Environment variable with the folder's path."""


def triton_folder() -> Path:
    """Return where the folder is, or would be: in the user's cache, one for each version of Python."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "homomorph" / f"triton-python{sys.version_info.major}.{sys.version_info.minor}"


def make_triton_folder() -> Path:
    """Install `REQUIREMENTS` into the folder, which appears whole or not at all; about 75 MB are downloaded.

    Raises:
        ServerError: pip cannot install them, as for a Python that numpy 1 knows nothing of.
        OutputError: the folder cannot be written.
    """
    folder = triton_folder()
    with replacing(folder) as partial:
        # Without dependencies: they are this environment's. No compiler is asked for numpy.
        words = ["--target", str(partial), "--no-deps", "--only-binary=:all:", "--quiet", *REQUIREMENTS]
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "install", *words], capture_output=True, text=True, check=False
        )
        if pip.returncode:
            lines = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise ServerError(f"Triton could not be installed into {folder}: {lines[-1]}")
    return folder
