"""The sheet of named strips."""

from __future__ import annotations

import numpy as np

from homomorph_client.sheet import named_strips


def test_rows_keep_their_frames_and_get_their_names() -> None:
    rows = {name: np.full((3, 16, 16, 3), value, np.uint8) for name, value in (("hair_colour", 10), ("skin", 200))}
    rows["skin"][1] = 90
    sheet = named_strips(rows)
    margin = sheet.shape[1] - 3 * 16
    assert sheet.shape[0] == 2 * 16
    assert (sheet[:16, margin:] == 10).all()
    assert (sheet[16:, margin + 16 : margin + 32] == 90).all()
    assert (sheet[16:, margin + 32 :] == 200).all()
    assert sheet[:16, :margin].min() < 100, "no name in the first row"
    assert sheet[16:, :margin].min() < 100, "no name in the second row"
