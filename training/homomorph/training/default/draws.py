"""What is random in one step of the default recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEPT, WHOLE = 0, 1
"""The two kinds of composed frames, and their index in `Draws.scores`."""
_PARTLY = 0.3
"""Share of the frames that the critic sees at less than full strength."""


@dataclass(frozen=True)
class Draws:
    """Everything that one step draws, beside its batch. B pictures, P = B pairs, K branches, G = K - 1 groups."""

    with_critic: bool
    """Whether the critic and its terms take part in this step."""
    decoder_alone: bool
    """Whether D alone learns in this step, from frames on the way too."""
    penalised: bool
    """Whether the critic's gradient is penalised in this step."""
    scores: Tensor
    """For each kind of composed frame, picture and group: a score in [0, 1) for each picture that may stand in, 0 for
    the picture itself; [2, B, G, B]."""
    swapped: Tensor
    """Whether another picture stands in for that picture in that group of a kept frame, bool [B, G]."""
    strengths: Tensor
    """How far the groups of the whole frame of each pair move, in (0, 1], [P]; all 1 where no critic judges it."""
    start: Tensor
    """Strengths at which the way of each pair of all groups starts, 0/1, [P, K]."""
    moving: Tensor
    """The branches that move on that way, 0/1, [P, K]."""
    times: Tensor
    """How far along its way the frame of each pair is, in (0, 1), [P]."""

    def to(self, device: torch.device) -> Draws:
        """Return the same on another device."""
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Draws(**moved)


def draw(
    pictures: int,
    branches: int,
    generator: torch.Generator,
    *,
    with_critic: bool,
    decoder_alone: bool,
    penalised: bool,
    swap: float,
) -> Draws:
    """Draw one step of B pictures and K branches.

    Args:
        pictures: B.
        branches: K.
        generator: on the CPU.
        with_critic: see `Draws`.
        decoder_alone: see `Draws`.
        penalised: see `Draws`.
        swap: largest share of a kept frame's groups that come from other pictures.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    groups = branches - 1
    scores = uniform(2, pictures, groups, pictures) * (1 - torch.eye(pictures).unsqueeze(1))
    # From frames that keep nearly all of their picture's own features to frames that keep none of a group's.
    swapped = uniform(pictures, groups) < swap * uniform(pictures, 1)
    # Half of the ways move all branches from a to b. The others move some, while some of the rest stand at b already.
    some, rest = (uniform(pictures, branches) < 0.5 for _ in range(2))
    everything = uniform(pictures, 1) < 0.5
    moving = some | everything
    # Only whole strengths say which labels a frame shows, so most are whole.
    partly = (uniform(pictures) < _PARTLY) & torch.tensor(with_critic)
    return Draws(
        with_critic=with_critic,
        decoder_alone=decoder_alone,
        penalised=penalised,
        scores=scores,
        swapped=swapped,
        strengths=torch.where(partly, uniform(pictures), 1.0),
        start=(rest & ~moving).float(),
        moving=moving.float(),
        # A frame near an end shows no front.
        times=0.04 + 0.92 * uniform(pictures),
    )
