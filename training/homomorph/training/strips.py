"""Draws strips while a model trains: all groups together, and each group alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.models.morph import MorphModel
from homomorph.models.pixels import from_normalised, normalise
from homomorph_client.sheet import named_strips

_STEPS = 7
"""Frames of a row."""


@torch.no_grad()
def group_strips(model: MorphModel, sources: Tensor, targets: Tensor) -> NDArray[np.uint8]:
    """Draw strips of pairs of pictures, with names on rows and columns.

    One row per pair for all groups together, then one per group alone. A row begins with a and ends with b; between
    them are the frames of v from 0 to 1.

    Args:
        model: the model to look at.
        sources: a of each pair, uint8 [P, 3, H, W].
        targets: b of each pair, the same shape.

    Returns:
        uint8 [height, width, 3].
    """
    branches = model.config.branches
    path = torch.linspace(0, 1, _STEPS)
    rows: dict[str, NDArray[np.uint8]] = {}
    for number, (a, b) in enumerate(zip(sources.split(1), targets.split(1), strict=True), start=1):
        for moved, name in ((None, "all"), *enumerate(branches)):
            strengths = torch.zeros(1, _STEPS, len(branches))
            strengths[..., slice(None) if moved is None else moved] = path.view(1, -1, 1) if moved is None else path
            frames = morph_pixels(model, a, b, strengths)[0]
            rows[f"{number}: {name}"] = torch.cat([a, frames, b]).permute(0, 2, 3, 1).numpy()
    return named_strips(rows, columns=["a", *(f"{value:.2f}" for value in path.tolist()), "b"])


def morph_pixels(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Morph uint8 pictures [B, 3, H, W] to uint8 [B, S, 3, H, W], as the served model does."""
    network = model.config.network
    return from_normalised(model(normalise(source, network), normalise(target, network), strengths), network)
