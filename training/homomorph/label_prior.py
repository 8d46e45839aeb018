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
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.data.batches import Batch
from homomorph.losses import label_prior_loss
from homomorph.networks import ResidualBlock
from homomorph.parallel import Processes

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


def train_label_prior(
    network: LabelPrior,
    batches: Iterable[tuple[Batch, Tensor]],
    steps: int,
    processes: Processes,
    *,
    learning_rate: float = 2e-3,
) -> Iterator[float]:
    """Train on pictures and their labels, one step per batch; only pictures whose labels are all known count.

    Args:
        network: trained in place.
        batches: of `steps` batches, each with its normalised pictures [B, 3, H, W].
        steps: how many there are.
        processes: this process among those that train.
        learning_rate: Adam's; it rises for a twentieth of the steps and falls along a cosine.

    Yields:
        Each step's loss.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
    for step, (batch, pictures) in enumerate(batches):
        share = 0.05 + 0.95 * (1 + np.cos(np.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = learning_rate * share * min(1.0, 20 * (step + 1) / steps)
        with processes.autocast():
            mean, variance = network(batch.labels, batch.placement)
            loss = label_prior_loss(mean, variance, pictures, batch.known.all(dim=1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(network.parameters())
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        yield processes.average({"label_prior": loss.item()}, ["label_prior"])["label_prior"]
