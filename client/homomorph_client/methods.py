"""Methods of morphing: homomorph's own, and the simpler ones that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from homomorph_client.errors import MethodError
from homomorph_client.names import BLENDS, HOMOMORPH, METHODS
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import even_ramp


def blending_model(method: str) -> str | None:
    """Return the served model of a method; None for `homomorph`, which uses the client's `model_name`.

    Raises:
        MethodError: there is no such method.
    """
    if method not in METHODS:
        raise MethodError(f"there is no method {method!r}: choose {', '.join(METHODS)}")
    return None if method == HOMOMORPH else method


def square_model(method: str, corners: Sequence[object]) -> str:
    """Return the served model that fills a square by a method.

    Raises:
        MethodError: the method blends no pictures, or the corners are not four.
    """
    if method not in BLENDS:
        raise MethodError(f"{method!r} fills no square: choose {', '.join(BLENDS)}")
    if len(corners) != 4:
        raise MethodError(f"a square has 4 corners, not {len(corners)}")
    return method


def places_between(strengths: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the places between two pictures, across and down, of frames with these strengths [S, 1]: [S, 2]."""
    places: npt.NDArray[np.float32] = np.concatenate([strengths, np.zeros_like(strengths)], axis=1)
    return places


def places_in_square(model: ServedModel, size: int) -> npt.NDArray[np.float32]:
    """Return the places of the frames of a square between the pictures in its corners.

    Args:
        model: the served model.
        size: number N of rows and of columns.

    Returns:
        float32 [N * N, 2], across and down from 0 to 1, row by row.

    Raises:
        StrengthError: `size` is less than 2.
        MethodError: the square has too many cells.
    """
    if size * size > model.max_steps:
        raise MethodError(f"a square has at most {model.max_steps} cells: {size}x{size} are too many")
    ramp = even_ramp(model, size)
    places: npt.NDArray[np.float32] = np.stack(np.meshgrid(ramp, ramp), axis=2).reshape(size * size, 2)
    return places
