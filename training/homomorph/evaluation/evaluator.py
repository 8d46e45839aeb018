"""The evaluator: a classifier of the labels that judges morphs.

It is trained on real pictures only, and shares nothing with what a model was trained against: Phi, Dis, A' or the
critic on pictures. Its features also measure the Frechet distance, and its maps d where LPIPS is not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator

import albumentations as A
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.augmented import Jitter, positional_augmentation
from homomorph.data.labels import UNKNOWN

FRAME_CHUNK = 256
"""Largest number of pictures that are judged at once."""

JITTER = Jitter(shift=0.1, scale=0.1, rotation_deg=10, probability=0.5)
"""Augmentation of the evaluator's pictures. All values are given: new defaults for training must change no figure."""


class Evaluator(nn.Module):
    """Pictures -> logits of the labels; four convolutions of stride 2 with batch normalisation, and a hidden layer.

    The last map is averaged over 2 x 2 quarters of the picture, not over all of it, because places matter.
    """

    reads_reconstructions = False

    def __init__(self, attributes: int, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width))
            for channels, width in zip((3, *widths), widths, strict=False)
        )
        self.hidden = nn.Linear(widths[-1] * 4, 128)
        self.classifier = nn.Linear(128, attributes)

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Pictures uint8 [B, 3, H, W] -> the maps of each stage."""
        x = pictures.float() / 127.5 - 1
        maps: list[Tensor] = []
        for stage in self.stages:
            x = F.silu(stage(x))
            maps.append(x)
        return maps

    def features(self, maps: list[Tensor]) -> Tensor:
        """Maps -> features [B, F]."""
        pooled = F.adaptive_avg_pool2d(maps[-1], 2).flatten(1)
        return F.silu(self.hidden(pooled))

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures uint8 [B, 3, H, W] -> logits [B, L]."""
        logits: Tensor = self.classifier(self.features(self.maps(pictures)))
        return logits

    @torch.no_grad()
    def judge(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Read pictures: uint8 [N, 3, H, W] -> probabilities [N, L] and features [N, F]."""
        probabilities, features = [], []
        for chunk in torch.from_numpy(pictures).split(FRAME_CHUNK):
            found = self.features(self.maps(chunk))
            features.append(found.double().numpy())
            probabilities.append(self.classifier(found).sigmoid().double().numpy())
        return np.concatenate(probabilities), np.concatenate(features)


def train_evaluator(
    network: Evaluator,
    pictures: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    steps: int,
    batch_size: int = 64,
) -> Iterator[float]:
    """Train on real pictures, moved a little each time.

    Args:
        network: trained in place, and left in evaluation mode.
        pictures: uint8 [N, 3, H, W].
        labels: 0, 1 or `UNKNOWN`, [N, L]; an unknown label is masked.
        steps: batches in all.
        batch_size: pictures a step.

    Yields:
        Each step's binary cross-entropy per label (chance: 0.69).
    """
    generator = np.random.default_rng(0)
    augment = positional_augmentation(JITTER)
    augment.set_random_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(steps):
        chosen = generator.integers(len(pictures), size=batch_size)
        moved = np.stack([moved_picture(augment, pictures[index]) for index in chosen])
        target = torch.from_numpy(labels[chosen])
        known = (target != UNKNOWN).float()
        losses = F.binary_cross_entropy_with_logits(
            network(torch.from_numpy(moved)), (target == 1).float(), weight=known, reduction="sum"
        )
        loss = losses / known.sum().clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()
    network.eval().requires_grad_(False)


def moved_picture(augment: A.Compose, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply a positional augmentation to a picture uint8 [3, H, W]."""
    moved = augment(image=np.ascontiguousarray(picture.transpose(1, 2, 0)))
    result: NDArray[np.uint8] = np.ascontiguousarray(moved["image"].transpose(2, 0, 1))
    return result
