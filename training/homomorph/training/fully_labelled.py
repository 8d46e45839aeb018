"""Reads the pictures of a folder whose labels are all known, for models that are fitted to labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from homomorph.data.labels import LabelledPictures
from homomorph_client.errors import PictureError
from homomorph_client.pictures import fit_picture


def fully_labelled(data: LabelledPictures, picture_size: int, count: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the index and the pixels [H, W, 3] of the first `count` such pictures that can be read."""
    for index in np.flatnonzero(data.known.all(axis=1)).tolist():
        if count == 0:
            return
        try:
            picture = fit_picture(data.paths[index], picture_size)
        except PictureError:
            continue
        count -= 1
        yield index, picture
