"""Features of a labelled folder's pictures, for models that are fitted to them after a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from homomorph.data.labels import LabelledPictures
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import normalise
from homomorph_client.errors import PictureError
from homomorph_client.pictures import fit_picture


@torch.no_grad()
def encoded(
    model: MorphModel, data: LabelledPictures, indices: Iterable[int], count: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield an index and E of that picture, [1, C, h, w], for the first `count` of these that can be read."""
    for index in indices:
        if count == 0:
            return
        try:
            picture = fit_picture(data.paths[index], model.config.picture_size)
        except PictureError:
            continue
        count -= 1
        pixels = torch.from_numpy(picture).permute(2, 0, 1).unsqueeze(0)
        yield index, model.encoder(normalise(pixels, model.config.network))
