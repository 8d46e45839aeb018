"""Conversion between pixels (uint8) and the networks' pictures (normalised floats)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Normalisation(Protocol):
    """A configuration of networks, which says what pictures they see."""

    @property
    def picture_mean(self) -> tuple[float, float, float]:
        """Per-channel mean subtracted from pictures in [0, 1]."""
        ...

    @property
    def picture_std(self) -> tuple[float, float, float]:
        """Per-channel deviation that pictures are divided by."""
        ...


def normalise(pictures: Tensor, config: Normalisation) -> Tensor:
    """uint8 [..., 3, H, W] -> float32, scaled to [0, 1], the configured mean removed, divided by the deviation."""
    mean, std = picture_statistics(config, pictures.device)
    return (pictures.float() / 255 - mean) / std


def from_normalised(pictures: Tensor, config: Normalisation) -> Tensor:
    """The inverse of `normalise`, rounded and clamped: float [..., 3, H, W] -> uint8."""
    mean, std = picture_statistics(config, pictures.device)
    return ((pictures * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def picture_statistics(config: Normalisation, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of pictures in [0, 1], each [3, 1, 1]; on the CPU unless a device is given."""
    values = torch.tensor([config.picture_mean, config.picture_std], device=device)
    return values[0].view(3, 1, 1), values[1].view(3, 1, 1)
