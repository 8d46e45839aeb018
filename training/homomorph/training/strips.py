"""Pictures to look at while a model trains: what all groups do together, and what each does alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.models.morph import MorphModel
from homomorph.models.pixels import from_normalised, normalise


@torch.no_grad()
def group_strips(model: MorphModel, pictures: Tensor, *, pairs: int = 3, steps: int = 7) -> NDArray[np.uint8]:
    """Draw strips of the first pairs of pictures.

    One row per pair for all groups together, then one per group alone. A row begins with a and ends with b; between
    them stand the frames of v from 0 to 1.

    Args:
        model: the model to look at.
        pictures: uint8 [B, 3, H, W] with B >= 2; pair k is pictures 2k and 2k + 1.
        pairs: number of pairs, as far as there are pictures.
        steps: frames per row.

    Returns:
        uint8 [rows * H, (steps + 2) * W, 3].
    """
    branches = model.config.branches
    rows: list[NDArray[np.uint8]] = []
    path = torch.linspace(0, 1, steps)
    for pair in range(min(pairs, len(pictures) // 2)):
        a, b = pictures[2 * pair : 2 * pair + 1], pictures[2 * pair + 1 : 2 * pair + 2]
        for moved in (None, *range(len(branches))):
            strengths = torch.zeros(1, steps, len(branches))
            strengths[..., slice(None) if moved is None else moved] = path.view(1, -1, 1) if moved is None else path
            frames = morph_pixels(model, a, b, strengths)[0]
            rows.append(np.concatenate([_hwc(a[0]), *(_hwc(frame) for frame in frames), _hwc(b[0])], axis=1))
    return np.concatenate(rows, axis=0)


def morph_pixels(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Morph uint8 pictures [B, 3, H, W] to uint8 [B, S, 3, H, W], as the served model does."""
    network = model.config.network
    return from_normalised(model(normalise(source, network), normalise(target, network), strengths), network)


def _hwc(picture: Tensor) -> NDArray[np.uint8]:
    return picture.permute(1, 2, 0).numpy()
