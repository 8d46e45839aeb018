"""What is random in one step of the default recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Everything that one step draws, beside its batch."""

    phase: str
    """See `recipe.py`."""
    penalised: bool
    """Whether the critic's gradient is penalised in this step."""
    times: Tensor
    """How far along its way the frame of each pair is, in (0, 1), [P]."""


def draw(pairs: int, generator: torch.Generator, *, phase: str, penalised: bool) -> Draws:
    """Draw one step of P pairs; `generator` is on the CPU."""
    # Next to the ends nothing is to be seen of a front.
    return Draws(phase, penalised, 0.04 + 0.92 * torch.rand(pairs, generator=generator))
