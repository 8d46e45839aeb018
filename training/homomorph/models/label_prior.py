"""What labels alone say of a picture, and the target of a morph that follows from it.

Nobody can photograph a person with another's hair. But a network that sees only labels learns, pixel by pixel, what
they determine (its mean) and what they leave open (its variance). Where the mean changes with the labels, a
morph has to show the new mean; where it does not, the picture has to stay. Nothing in this can be fooled, as a
classifier or a critic can, and where labels determine little it asks for little.

A morph can be no better than this target: what the prior blurs, the T_i cannot learn. So each label has a map of its
own at half the picture's resolution, where an eyebrow has its place, and the prior learns first, from pictures that
are not moved.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.models.compact import ResidualBlock

MIN_VARIANCE = 1e-3
"""Smallest variance of a pixel given the labels: some four grey levels squared, in normalised units."""
_START = 0.3
"""Deviation of the first maps, summed over all labels."""


class LabelPrior(nn.Module):
    """p(picture | labels) as one Gaussian per pixel: the labels' maps are summed, and laid over each other."""

    def __init__(self, attributes: int, picture_size: int, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.start = (width, picture_size // 2, picture_size // 2)
        self.maps = nn.Linear(attributes, math.prod(self.start))
        nn.init.normal_(self.maps.weight, std=_START / math.sqrt(attributes))
        nn.init.zeros_(self.maps.bias)
        self.model = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 16, 3, padding=1),
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
        maps = self.maps(2 * labels - 1).view(-1, *self.start).contiguous(memory_format=torch.channels_last)
        # Moving a picture mixes pixels: in float32, places too.
        drawn = self.model(maps).float()
        # The device meta, on which a dry run counts, has no autocast to leave.
        device = drawn.device.type if torch.amp.is_autocast_available(drawn.device.type) else "cpu"
        with torch.autocast(device, enabled=False):
            grid = F.affine_grid(placement.float(), list(drawn.shape), align_corners=False)
            moved = F.grid_sample(drawn, grid, padding_mode="border", align_corners=False)
        return moved[:, :3], MIN_VARIANCE + F.softplus(moved[:, 3:])
