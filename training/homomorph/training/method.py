"""What a method of training gives to the loop: its networks, what a step draws, and its losses.

A step always has the same order, whatever the method: draw, forward, update the critics, update the networks. The
loop (`loop.py`) owns that order; a method owns what is computed.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.loading import Batches
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.morph import MorphModel

Batch = TypeVar("Batch")
"""Pictures and labels of one step, on the training's device."""
Draws = TypeVar("Draws")
"""Everything random in one step, drawn before anything is computed: a frozen record."""
Output = TypeVar("Output")
"""What the networks made of a batch, with gradients: a frozen record."""


class Method(abc.ABC, Generic[Batch, Draws, Output]):
    """One way to train one kind of model.

    Shapes within a step do not depend on the data: what does not count has the weight 0. So a step can be compiled, and
    captured as one CUDA graph.
    """

    networks: nn.Module
    """Every network that a step reads or updates. Its state dict, with the optimizers', is the state to resume from."""
    model: nn.Module
    """What is trained."""
    mean_model: MorphModel | CycleGAN
    """The running mean of its weights (EMA), which is what the run folder gets."""
    optimizers: Mapping[str, torch.optim.Adam]
    """Adam of each network, by the network's name."""
    critics: tuple[str, ...]
    """Names of the optimizers that learn from `critic_terms`."""
    batches: Batches[Any]
    """Item `step` is that step's batch, before `prepare`."""
    batch_size: int
    """Pictures of one step."""
    settings: dict[str, Any]
    """The resolved configuration, as plain values that JSON can hold. A resumed run must have the same."""
    weights: Mapping[str, float]
    """Weight of each of `terms` in the loss; a term of weight 0 is not computed."""
    critic_weights: Mapping[str, float]
    """The same of `critic_terms`."""
    critic_updates: int = 1
    """Updates of the critics in one step."""
    largest_norm: float | None = None
    """Largest norm of each network's gradient, beyond which it is scaled down. The critics' are never scaled."""

    @abc.abstractmethod
    def phase(self, step: int) -> str:
        """Name what this step trains."""

    def learners(self, step: int) -> tuple[str, ...]:
        """Name the optimizers that learn from `terms` in this step; all but the critics', unless a method says else."""
        return tuple(name for name in self.optimizers if name not in self.critics)

    @abc.abstractmethod
    def learning_rate(self, name: str, step: int) -> float:
        """Adam's rate in this step for the optimizer of that name."""

    @abc.abstractmethod
    def mean_decay(self, step: int) -> float:
        """Decay of the running mean of the weights in this step, in [0, 1)."""

    @abc.abstractmethod
    def prepare(self, batch: Any) -> Batch:
        """Move a batch of `batches` to the device and normalise its pictures."""

    @abc.abstractmethod
    def draw(self, batch: Batch, step: int, generator: torch.Generator) -> Draws:
        """Draw everything that is random in this step.

        Args:
            batch: the step's batch; its shapes and labels may be read.
            step: number of the step.
            generator: on the CPU, seeded from the seed, the step and the process.
        """

    @abc.abstractmethod
    def forward(self, batch: Batch, draws: Draws) -> Output:
        """Run the networks whose result the terms and the critics share."""

    @abc.abstractmethod
    def critic_terms(self, batch: Batch, draws: Draws, output: Output, update: int) -> dict[str, Tensor]:
        """Losses of the critics, by their names in `critic_weights`; `update` counts from 0 to `critic_updates` - 1."""

    @abc.abstractmethod
    def terms(self, batch: Batch, draws: Draws, output: Output) -> dict[str, Tensor]:
        """Losses of the networks, by their names in `weights`. Other weights than the learners' get no gradients."""

    @abc.abstractmethod
    def strips(self) -> NDArray[np.uint8]:
        """Draw what `mean_model` makes of a few pictures, with names, uint8 [H, W, 3]."""

    def finish(self, out: Path) -> None:
        """Write what the run folder needs beside the model once training has ended."""
