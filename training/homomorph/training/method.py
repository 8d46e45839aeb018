"""Interface between the training loop and a method: the method's networks, random draws and losses.

The steps of all methods have the same order: draw, forward, update the critics, update the networks. The loop
(`loop.py`) defines the order. A method defines the computations.
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
"""All random values of one step, drawn before its first computation: a frozen record."""
Output = TypeVar("Output")
"""Results of the networks for one batch, with gradients: a frozen record."""


class Method(abc.ABC, Generic[Batch, Draws, Output]):
    """One way to train one kind of model.

    Shapes within a step do not depend on the data: elements that do not count have the weight 0. So a step can be
    compiled, and captured as one CUDA graph.
    """

    networks: nn.Module
    """Every network that a step reads or updates. Its state dict, with the optimizers', is the state to resume from."""
    model: nn.Module
    """The model that is trained."""
    mean_model: MorphModel | CycleGAN
    """The running mean of its weights (EMA). The run folder gets this model."""
    optimizers: Mapping[str, torch.optim.Optimizer]
    """Network's name -> its optimizer, which has one group of parameters."""
    critics: tuple[str, ...]
    """Names of the critics' optimizers, which minimise `critic_terms`."""
    batches: Batches[Any]
    """Item `step` is that step's batch, before `prepare`."""
    batch_size: int
    """Pictures of one step."""
    settings: dict[str, Any]
    """The resolved configuration, as plain values that JSON can hold. A resumed run must have the same."""
    weights: Mapping[str, float]
    """Weight of each of `terms` in the loss. A term with weight 0 is not computed."""
    critic_weights: Mapping[str, float]
    """Weight of each of `critic_terms` in the critics' loss."""
    critic_updates: int = 1
    """Number of updates of the critics in one step."""
    largest_norm: float | None = None
    """Largest norm of each network's gradient. A larger gradient is scaled down, except those of the critics."""

    @abc.abstractmethod
    def phase(self, step: int) -> str:
        """Return the name of this step's phase of training."""

    def begin_step(self, step: int) -> None:
        """Prepare for a step, such as the first one of a phase. The default does nothing."""

    def learners(self, step: int) -> tuple[str, ...]:
        """Return the names of the optimizers that minimise `terms` in this step. The default: all but the critics'."""
        return tuple(name for name in self.optimizers if name not in self.critics)

    @abc.abstractmethod
    def learning_rate(self, name: str, step: int) -> float:
        """Return the learning rate of an optimizer in this step."""

    @abc.abstractmethod
    def mean_decay(self, step: int) -> float:
        """Return the decay of the weights' running mean in this step, in [0, 1)."""

    @abc.abstractmethod
    def prepare(self, batch: Any) -> Batch:
        """Move a batch of `batches` to the device and normalise its pictures."""

    @abc.abstractmethod
    def draw(self, batch: Batch, step: int, generator: torch.Generator) -> Draws:
        """Draw all random values of this step.

        Args:
            batch: the step's batch; its shapes and labels may be read.
            step: number of the step.
            generator: on the CPU, seeded from the seed, the step and the process.
        """

    @abc.abstractmethod
    def forward(self, batch: Batch, draws: Draws) -> Output:
        """Run the networks once. The terms and the critics share the result."""

    @abc.abstractmethod
    def critic_terms(self, batch: Batch, draws: Draws, output: Output, update: int) -> dict[str, Tensor]:
        """Return the critics' losses, named as in `critic_weights`. `update` is from 0 to `critic_updates` - 1."""

    @abc.abstractmethod
    def terms(self, batch: Batch, draws: Draws, output: Output) -> dict[str, Tensor]:
        """Return the networks' losses, named as in `weights`. Only parameters of `learners` get gradients."""

    @abc.abstractmethod
    def strips(self) -> NDArray[np.uint8]:
        """Return a sheet of `mean_model`'s results for a few pictures, with names, uint8 [H, W, 3]."""

    def finish(self, out: Path) -> None:
        """Write the files, besides the model, that the run folder needs after training."""
