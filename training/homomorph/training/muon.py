"""The optimizer of E and D."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_SMALLEST_SIDE = 16
"""Weights with fewer rows or columns get Adam's update."""
_VECTOR_SHARE = 0.3
"""Learning rate of Adam's updates, as a share of Muon's."""
_DECAY = 0.95
"""Decay of Muon's momentum."""
_BETAS = (0.9, 0.99)
"""Adam's decays beside Muon."""
_ADVERSARIAL_BETAS = (0.5, 0.99)
"""Adam's decays after Muon, of which the first is small: a critic changes, and its old gradients are soon wrong."""


class Muon(torch.optim.Optimizer):
    """Muon for the weights of convolutions and linear layers, Adam for biases and for weights of few channels.

    Muon replaces the momentum of a weight matrix by the nearest matrix whose singular values are all near 1, so that
    rare directions of the gradient are learned as fast as frequent ones (Jordan et al., "Muon: an optimizer for hidden
    layers", 2024). The kernel of a convolution is the matrix [output channels, input channels * height * width].
    (`torch.optim.Muon` takes matrices only.) Adam can take over all weights after a number of updates.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, updates: int | None = None) -> None:
        """Take the parameters; the training loop sets the learning rate `lr` of the only group before each step.

        Args:
            parameters: of a network.
            updates: number of Muon's updates, after which Adam makes all updates; None: Muon makes them to the end.
        """
        super().__init__(parameters, {"lr": 0.0})
        self._updates = updates

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self._updates is not None and self._count(parameter) > self._updates:
                    self._adam_update(parameter, parameter.grad, group["lr"], _ADVERSARIAL_BETAS)
                elif min(len(parameter), parameter[0].numel()) >= _SMALLEST_SIDE and parameter.ndim > 1:
                    self._orthogonal_update(parameter, parameter.grad, group["lr"])
                else:
                    self._adam_update(parameter, parameter.grad, _VECTOR_SHARE * group["lr"], _BETAS)

    def _count(self, parameter: nn.Parameter) -> int:
        """Return the number of this update. After Muon's last one, forget the moments: Adam starts with its own."""
        done = self.state[parameter].setdefault("updates", torch.zeros(()))
        if done == self._updates:
            self.state[parameter] = {"updates": done}
        done += 1
        return int(done)

    def _orthogonal_update(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - _DECAY)
        # Nesterov: what the momentum will be if the next gradient is like this one.
        matrix = gradient.lerp(momentum, _DECAY).flatten(1)
        rows, columns = matrix.shape
        parameter.add_(_orthogonal(matrix).view_as(parameter), alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def _adam_update(self, parameter: nn.Parameter, gradient: Tensor, rate: float, betas: tuple[float, float]) -> None:
        state = self.state[parameter]
        if "step" not in state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        state["step"] += 1
        step = state["step"].item()
        mean = state["exp_avg"].lerp_(gradient, 1 - betas[0])
        square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - betas[1])
        deviation = (square / (1 - betas[1] ** step)).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean, deviation, value=-rate / (1 - betas[0] ** step))


def _orthogonal(matrix: Tensor) -> Tensor:
    """Move all singular values of a matrix [M, N] near 1, by five Newton-Schulz steps.

    Their quintic polynomial, of Jordan et al., grows small values fastest; it ends between .7 and 1.2.
    """
    x: Tensor = matrix / (torch.linalg.matrix_norm(matrix) + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x
