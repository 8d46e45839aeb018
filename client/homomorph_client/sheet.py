"""A sheet of named strips, one row each: what every slider does alone, at one look."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_MARGIN_PX = 96
_FONT_PX = 13


def named_strips(rows: Mapping[str, npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Draw strips below each other with their names at the left.

    Args:
        rows: name -> frames uint8 [S, H, W, 3], all of one shape.

    Returns:
        uint8 [rows * H, margin + S * W, 3].
    """
    strips = np.concatenate([np.concatenate(list(frames), axis=1) for frames in rows.values()], axis=0)
    row_px = strips.shape[0] // len(rows)
    margin = Image.new("RGB", (_MARGIN_PX, strips.shape[0]), "white")
    draw = ImageDraw.Draw(margin)
    font = ImageFont.load_default(_FONT_PX)
    for row, name in enumerate(rows):
        draw.text((4, (row + 0.5) * row_px), name.replace("_", " "), "black", font, anchor="lm")
    return np.concatenate([np.asarray(margin), strips], axis=1)
