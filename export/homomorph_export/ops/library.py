"""Loads the operator's library into this process, once."""

from __future__ import annotations

from pathlib import Path

import torch

from homomorph_export.errors import OperatorError


def is_loaded() -> bool:
    """Return whether `homomorph::interpolate` is registered in this process, by any library."""
    return hasattr(torch.ops.homomorph, "interpolate")


def has_kernel(device_type: str) -> bool:
    """Return whether the operator computes on such devices: `cpu` and, if its library was built with nvcc, `cuda`."""
    key = {"cpu": "CPU", "cuda": "CUDA", "meta": "Meta"}.get(device_type)
    if key is None or not is_loaded():
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key("homomorph::interpolate", key)


def load_library(path: Path) -> None:
    """Load the library, unless the operator is registered already: a second copy would end the process.

    Raises:
        OperatorError: the file is missing, or made for another machine or an older torch than 2.10.
    """
    if is_loaded():
        return
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise OperatorError(f"the operator's library {path} cannot be loaded: {error}") from error
