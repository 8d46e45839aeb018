"""Draws a sheet of named strips, one row each. It shows what each slider does alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_MARGIN_PX = 96
_TOP_PX = 20
_FONT_PX = 13


def named_strips(rows: Mapping[str, npt.NDArray[np.uint8]], *, columns: Sequence[str] = ()) -> npt.NDArray[np.uint8]:
    """Draw strips as rows, with their names on the left and the names of the columns above.

    Args:
        rows: name -> frames uint8 [S, H, W, 3], all of one shape.
        columns: names of the S frames; empty: no line of names above.

    Returns:
        uint8 [margin + rows * H, margin + S * W, 3]; without column names there is no margin above.
    """
    strips = np.concatenate([np.concatenate(list(frames), axis=1) for frames in rows.values()], axis=0)
    top = _TOP_PX if columns else 0
    row_px = strips.shape[0] // len(rows)
    sheet = Image.new("RGB", (_MARGIN_PX + strips.shape[1], top + strips.shape[0]), "white")
    sheet.paste(Image.fromarray(strips), (_MARGIN_PX, top))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_PX)
    for row, name in enumerate(rows):
        draw.text((4, top + (row + 0.5) * row_px), name.replace("_", " "), "black", font, anchor="lm")
    for column, name in enumerate(columns):
        column_px = strips.shape[1] // len(columns)
        draw.text((_MARGIN_PX + (column + 0.5) * column_px, top / 2), name, "black", font, anchor="mm")
    return np.asarray(sheet)
