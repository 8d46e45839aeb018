"""Where nvidia-pytriton keeps tritonserver, and what that needs around it to run on its own."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import sysconfig
from pathlib import Path

from homomorph_client.errors import ServerError


def find_distribution() -> Path:
    """Return the folder of nvidia-pytriton that holds tritonserver, without importing the package.

    Raises:
        ServerError: it is not installed, or has nothing for this version of Python.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("nvidia-pytriton is not installed: pip install 'homomorph[serve]'")
    distribution = Path(spec.submodule_search_locations[0]) / "tritonserver"
    if not _python_stub(distribution).exists():
        version = _python_version()
        raise ServerError(f"nvidia-pytriton has no Python backend for Python {version}: use 3.10, 3.11 or 3.12")
    return distribution


def link_backends(distribution: Path, backends: Path) -> None:
    """Fill an empty backend folder: tritonserver wants this Python's stub beside the Python backend's library."""
    python = backends / "python"
    python.mkdir()
    for file in (*(distribution / "backends" / "python").iterdir(), _python_stub(distribution)):
        (python / file.name).symlink_to(file)


def environment(distribution: Path) -> dict[str, str]:
    """Return the environment in which tritonserver finds its libraries and its stubs find this Python."""
    libraries = [
        str(distribution.parent.parent / "nvidia_pytriton.libs"),
        sysconfig.get_config_var("LIBDIR"),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
    }


def _python_stub(distribution: Path) -> Path:
    return distribution / "python_backend_stubs" / _python_version() / "triton_python_backend_stub"


def _python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])
