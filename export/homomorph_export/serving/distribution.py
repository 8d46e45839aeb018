"""Find tritonserver within nvidia-pytriton, the environment that it needs, and further backends for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from pathlib import Path

from homomorph.progress import Progress, Report, silent
from homomorph_client.errors import ServerError
from homomorph_client.version import install_hint
from homomorph_export.flavours import PYTHON, Flavour
from homomorph_export.serving.triton_folder import make_triton_folder, triton_folder

_CONTAINER_BACKENDS = Path("/opt/tritonserver/backends")
"""Folder of Triton's backends in NVIDIA's containers."""


def find_distribution() -> Path:
    """Return the folder of nvidia-pytriton that holds tritonserver, without importing the package.

    Uses the nvidia-pytriton of this environment. If that is missing or numpy is version 2, uses `triton_folder`.

    Raises:
        ServerError: neither exists, or nvidia-pytriton does not support this version of Python.
    """
    distribution, reason = _distribution_here()
    if distribution is None:
        distribution = triton_folder() / "pytriton" / "tritonserver"
        if not distribution.is_dir():
            raise ServerError(f"{reason}, or let `homomorph serve` install Triton into a folder of its own")
    if not _python_stub(distribution).exists():
        version = _python_version()
        raise ServerError(f"nvidia-pytriton has no Python backend for Python {version}: use 3.10, 3.11 or 3.12")
    return distribution


def ensure_triton(report: Report = silent) -> None:
    """Install Triton into `triton_folder` if it cannot run from this environment and is not installed there yet.

    Raises:
        ServerError: Triton cannot be installed, or torch, which the models need, is missing.
        OutputError: the folder cannot be written.
    """
    if importlib.util.find_spec("torch") is None:
        raise ServerError(f"to serve, {install_hint('export')}: models compute with torch, which is not installed")
    if _distribution_here()[0] is None and not triton_folder().is_dir():
        report(Progress(f"Installing Triton into {triton_folder()}, once (75 MB)"))
        make_triton_folder()


def _distribution_here() -> tuple[Path | None, str | None]:
    """Return the folder of this environment that holds tritonserver; or None, and the reason why there is none."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None, f"to serve, {install_hint('serve')}: nvidia-pytriton is not installed"
    numpy = importlib.metadata.version("numpy")
    if int(numpy.partition(".")[0]) >= 2:
        # The stub is built for the arrays of numpy 1; with numpy 2 it sends answers without their data.
        return None, f"nvidia-pytriton's Python backend does not work with numpy {numpy}: pip install 'numpy<2'"
    return Path(spec.submodule_search_locations[0]) / "tritonserver", None


def link_backends(distribution: Path, backends: Path) -> None:
    """Link the Python backend into an empty folder, with the stub of this Python beside its library."""
    python = backends / "python"
    python.mkdir()
    for file in (*(distribution / "backends" / "python").iterdir(), _python_stub(distribution)):
        (python / file.name).symlink_to(file)


def find_backend(flavour: Flavour, backends: Path | None) -> Path | None:
    """Return the folder of a flavour's backend; None for the Python backend, which is part of nvidia-pytriton.

    Args:
        flavour: the served configurations.
        backends: folder of Triton's backends; None: that of NVIDIA's containers.

    Raises:
        ServerError: the backend does not exist.
    """
    if flavour is PYTHON:
        return None
    folder = (backends or _CONTAINER_BACKENDS) / flavour.backend
    if not (folder / flavour.library).is_file():
        raise ServerError(
            f"flavour {flavour.name!r} needs Triton's backend {flavour.backend!r}, and there is no "
            f"{folder / flavour.library}: nvidia-pytriton brings the Python backend alone, NVIDIA's container "
            "brings all (--backends names another folder of them)"
        )
    return folder


def environment(distribution: Path, backend: Path | None = None) -> dict[str, str]:
    """Return environment variables with which tritonserver finds its libraries and its stubs find this Python.

    Args:
        distribution: the folder that holds tritonserver.
        backend: the folder of a backend with libraries of its own, such as libtorch.
    """
    libraries = [
        str(distribution.parent.parent / "nvidia_pytriton.libs"),
        str(backend.resolve()) if backend else None,
        sysconfig.get_config_var("LIBDIR"),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    # Packages in Triton's own folder take precedence over those of this environment.
    own = [str(triton_folder().resolve())] if distribution.is_relative_to(triton_folder()) else []
    packages = os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **os.environ,
        **({"PYTHONPATH": packages} if packages else {}),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
    }


def _python_stub(distribution: Path) -> Path:
    return distribution / "python_backend_stubs" / _python_version() / "triton_python_backend_stub"


def _python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])
