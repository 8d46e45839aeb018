"""Loads the operator's library into this process, once."""

from __future__ import annotations

from pathlib import Path

import torch

from homomorph_export.errors import OperatorError


def is_loaded() -> bool:
    """Return whether `homomorph::interpolate` is registered, by whomever."""
    return hasattr(torch.ops.homomorph, "interpolate")


def load(path: Path) -> None:
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
