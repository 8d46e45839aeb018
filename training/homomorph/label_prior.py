"""What labels alone say of a picture, and the target of a morph that follows from it.

Nobody can photograph a person with another's hair. But a network that sees only labels learns, pixel by pixel, what
they determine (its mean) and what they leave open (its variance). Where the mean changes with the labels, a
morph has to show the new mean; where it does not, the picture has to stay. Nothing in this can be fooled, as a
classifier or a critic can, and where labels determine little it asks for little.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

MIN_VARIANCE = 1e-3
"""Smallest variance of a pixel given the labels: some four grey levels squared, in normalised units."""
_GROWTH = 8
"""How much larger pictures are than the first map: it is doubled three times, whatever the stride of E."""


class LabelPrior(nn.Module):
    """p(picture | labels) as one Gaussian per pixel."""

    def __init__(self, attributes: int, picture_size: int, widths: tuple[int, int, int] = (96, 64, 48)) -> None:
        super().__init__()
        self.start = (widths[0], picture_size // _GROWTH, picture_size // _GROWTH)
        self.first = nn.Linear(attributes, math.prod(self.start))
        wide, middle, narrow = widths
        self.model = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(wide, middle, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(middle, narrow, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(narrow, 16, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, labels: Tensor, placement: Tensor) -> tuple[Tensor, Tensor]:
        """Predict pictures from labels.

        Args:
            labels: 0/1, [B, L].
            placement: where the positional augmentation has put each picture, as `torch.nn.functional.affine_grid`
                takes it, [B, 2, 3].

        Returns:
            Mean [B, 3, H, W] and variance [B, 1, H, W], of normalised pictures.
        """
        maps = self.model(self.first(2 * labels - 1).view(-1, *self.start))
        grid = F.affine_grid(placement, list(maps.shape), align_corners=False)
        maps = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
        return maps[:, :3], MIN_VARIANCE + F.softplus(maps[:, 3:])
