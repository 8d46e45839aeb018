"""Helpers for the updates of networks, shared by all methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

WARMUP_STEPS = 160
"""Steps in which the learning rate rises."""


def flush_denormals() -> None:
    """Round denormal numbers to 0 from now on.

    Adam's second moments decay into denormal numbers, which a CPU handles a hundred times slower.
    """
    np.finfo(np.float64)  # numpy examines denormals once, and would warn after they are switched off
    torch.set_flush_denormal(True)


def rate_share(step: int, steps: int) -> float:
    """Return the share of the largest learning rate in step number `step` of `steps`.

    The rate rises during `WARMUP_STEPS`, or during a tenth of a short training. It stays until three fifths of the
    steps are done, and falls linearly to a fiftieth.
    """
    rise = 0.01 + step / min(WARMUP_STEPS, max(1, steps // 10))
    return min(1.0, rise, 0.02 + 0.98 * (1 - step / steps) / 0.4)


def mean_decay(largest: float, step: int) -> float:
    """Return the decay of the weights' running mean: small at first, while the weights change fast."""
    return min(largest, (step + 1) / (step + 10))


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Update a running mean of weights. Copies buffers, because BatchNorm's are running means already."""
    torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - decay)
    for buffer, latest in zip(mean.buffers(), model.buffers(), strict=True):
        buffer.copy_(latest)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Switch off a network's parameter gradients. Gradients still pass through it to its inputs."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
