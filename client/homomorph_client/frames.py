"""Frames that a notebook draws; in every other way they are an array of numpy."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_ROW_PX = 1152
"""Width in pixels at which a row of frames ends."""
_DISPLAYED = 64
"""Largest number of frames that are drawn. From a longer sequence, this many are chosen at even distances."""


class Frames(np.ndarray[Any, np.dtype[np.uint8]]):
    """Pictures uint8 [..., H, W, 3] that show themselves as the last line of a notebook's cell.

    Slices are `Frames`, too. Computing with them gives plain arrays.
    """

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Return the result of a computation as numpy returns it for plain arrays: an array, or a number."""
        return array[()] if array.ndim == 0 else array.view(np.ndarray)

    def _repr_png_(self) -> bytes | None:
        """Draw one frame, a sequence in rows, or a grid; None if these are no pictures."""
        if self.dtype != np.uint8 or not 3 <= self.ndim <= 5 or self.shape[-1] != 3 or self.size == 0:
            return None
        file = io.BytesIO()
        Image.fromarray(_sheet(self.view(np.ndarray))).save(file, "PNG")
        return file.getvalue()


def _sheet(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Place frames beside and below each other: uint8 [rows * H, columns * W, 3]."""
    height, width = frames.shape[-3:-1]
    if frames.ndim == 5:
        rows, columns = frames.shape[:2]
    else:
        frames = frames.reshape(-1, height, width, 3)
        if len(frames) > _DISPLAYED:
            frames = frames[np.linspace(0, len(frames) - 1, _DISPLAYED).round().astype(int)]
        columns = min(len(frames), max(1, _ROW_PX // width))
        rows = -(-len(frames) // columns)
    cells = np.full((rows * columns, height, width, 3), 255, np.uint8)
    cells[: math.prod(frames.shape[:-3])] = frames.reshape(-1, height, width, 3)
    return cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
