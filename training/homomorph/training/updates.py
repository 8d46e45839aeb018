"""What the updates of networks share, whatever the method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def flush_denormals() -> None:
    """Let tiny numbers be 0 from now on.

    Adam's second moments decay into denormal numbers, which a CPU handles a hundred times slower.
    """
    np.finfo(np.float64)  # numpy looks at them once, and would warn later that there are none
    torch.set_flush_denormal(True)


def rate_share(done: float) -> float:
    """Share of the largest learning rate: it rises for a hundredth of the steps, then falls along a cosine.

    The last steps have a twentieth of it.

    `done` is the share of the steps that are done, in [0, 1].
    """
    return min(1.0, 0.01 + 100 * done) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Let a running mean of weights follow them; buffers are taken over, as BatchNorm's are running means already."""
    torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - decay)
    for buffer, latest in zip(mean.buffers(), model.buffers(), strict=True):
        buffer.copy_(latest)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network without reaching its own parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
