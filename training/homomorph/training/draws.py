"""What a step of training draws: strengths, and the times at which ways are looked at."""

from __future__ import annotations

import torch
from torch import Tensor

PATH_STEP = 1 / 16
"""Duration of the steps in which a way is looked at, of the whole way's 1: those of a sequence of 17 frames."""


def draw_strengths(pairs: int, branches: int, generator: torch.Generator, whole_share: float) -> Tensor:
    """Draw v for each pair, [pairs, branches].

    Uniform in [0, 1] per branch as published; but a share of the pairs, spread evenly, gets 0 or 1 per branch instead,
    with a random share of ones: whole changes, of whose pictures labels can say what they have to show.
    """
    uniform = torch.rand(pairs, branches, generator=generator)
    ones = torch.rand(pairs, 1, generator=generator)
    whole = (torch.rand(pairs, branches, generator=generator) < ones).float()
    count = (torch.arange(pairs + 1) * whole_share).floor()
    return torch.where((count[1:] > count[:-1]).unsqueeze(1), whole, uniform)


def draw_times(pairs: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw the times of each way's frames: 0, the start and end of each short step, and 1, [pairs, 2 + 2 steps].

    One step lies in each equal part of the way. The first and last may begin at 0 and end at 1, and do so oftener than
    by chance, or what is next to the ends would hardly be looked at.
    """
    start = (torch.arange(steps) + torch.rand(pairs, steps, generator=generator)) / steps
    start = (start * (1 + PATH_STEP) - PATH_STEP).clamp(0, 1 - PATH_STEP)
    times = torch.zeros(pairs, 2 + 2 * steps)
    times[:, 1:-1:2], times[:, 2:-1:2], times[:, -1] = start, start + PATH_STEP, 1
    return times
