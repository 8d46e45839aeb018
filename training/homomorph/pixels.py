"""Between pixels (uint8) and what the networks see (normalised floats)."""

from __future__ import annotations

import torch
from torch import Tensor

from homomorph.config import NetworkConfig


def normalise(pictures: Tensor, config: NetworkConfig) -> Tensor:
    """uint8 [..., 3, H, W] -> float32, scaled to [0, 1], the configured mean removed, divided by the deviation."""
    mean, std = _statistics(config)
    return (pictures.float() / 255 - mean) / std


def from_normalised(pictures: Tensor, config: NetworkConfig) -> Tensor:
    """The inverse of `normalise`, rounded and clamped: float [..., 3, H, W] -> uint8."""
    mean, std = _statistics(config)
    return ((pictures * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _statistics(config: NetworkConfig) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(config.picture_mean), torch.tensor(config.picture_std)
    return mean.view(3, 1, 1), std.view(3, 1, 1)
