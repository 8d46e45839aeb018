"""Pictures to look at while a model trains: what all groups do together, and what each does alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.models.morph import MorphModel
from homomorph.models.pixels import from_normalised, normalise
from homomorph_client.sheet import named_strips


@torch.no_grad()
def group_strips(model: MorphModel, pictures: Tensor, *, pairs: int = 3, steps: int = 7) -> NDArray[np.uint8]:
    """Draw strips of the first pairs of pictures, with names on rows and columns.

    One row per pair for all groups together, then one per group alone. A row begins with a and ends with b; between
    them stand the frames of v from 0 to 1.

    Args:
        model: the model to look at.
        pictures: uint8 [B, 3, H, W] with B >= 2; picture k and picture k + B/2 are a pair, as in `PairedBatches`.
        pairs: number of pairs, as far as there are pictures.
        steps: frames per row.

    Returns:
        uint8 [height, width, 3].
    """
    branches = model.config.branches
    half = len(pictures) // 2
    path = torch.linspace(0, 1, steps)
    rows: dict[str, NDArray[np.uint8]] = {}
    # The last couples of a batch are pictures at random.
    for number, pair in enumerate(range(half - 1, max(half - 1 - pairs, -1), -1), start=1):
        a, b = pictures[pair : pair + 1], pictures[half + pair : half + pair + 1]
        for moved, name in ((None, "all"), *enumerate(branches)):
            strengths = torch.zeros(1, steps, len(branches))
            strengths[..., slice(None) if moved is None else moved] = path.view(1, -1, 1) if moved is None else path
            frames = morph_pixels(model, a, b, strengths)[0]
            rows[f"{number}: {name}"] = torch.cat([a, frames, b]).permute(0, 2, 3, 1).numpy()
    return named_strips(rows, columns=["a", *(f"{value:.2f}" for value in path.tolist()), "b"])


def morph_pixels(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Morph uint8 pictures [B, 3, H, W] to uint8 [B, S, 3, H, W], as the served model does."""
    network = model.config.network
    return from_normalised(model(normalise(source, network), normalise(target, network), strengths), network)
