"""The branches T_i with the interpolation: one after the other, as exported, against one joint network.

The joint network merges the first convolutions of all branches into one, since all have the same input; each later
layer becomes one grouped convolution. In the folded variant the last layers, which are linear, do the interpolation as
well: sum_k v_k * W_k h_k is one convolution over the hidden channels of all branches, scaled by their strengths. It
runs for every frame instead of once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from homomorph.models.compact import Branch
from homomorph_bench.timing import Timing, time_in_turns
from homomorph_export import torchscript
from homomorph_export.parts import Parts
from homomorph_export.servable import InterpolatorServable

ONE_BY_ONE = "branches one by one"
AT_ONCE = "branches at once"
FOLDED = "branches at once, last layers folded"
_TOLERANCE = 1e-2
"""Largest difference, as a share of the largest value: the variants round bfloat16 at different places."""


class JointBranches(nn.Module):
    """All branches as one network.

    Features of sources and targets [B, C, h, w], strengths [B, S, K] -> features of all frames [B, S, C, h, w].
    """

    def __init__(self, branches: Sequence[nn.Module], dtype: torch.dtype, *, folded: bool) -> None:
        super().__init__()
        contexts = [branch.context for branch in branches if isinstance(branch, Branch) and branch.context is not None]
        layers = [[layer for layer in _layers(branch) if layer not in contexts] for branch in branches]
        joint = [_joint_layer(list(same), grouped=index > 0) for index, same in enumerate(zip(*layers, strict=True))]
        self.first, self.middle = joint[0], nn.Sequential(*joint[1:-1])
        self.context = _joint_layer(contexts, grouped=False) if contexts else None
        self.last = _summing_layer([branch_layers[-1] for branch_layers in layers]) if folded else joint[-1]
        self.dtype, self.folded = dtype, folded

    def forward(self, SOURCE: Tensor, TARGET: Tensor, STRENGTHS: Tensor) -> Tensor:
        difference = (TARGET - SOURCE).to(self.dtype)
        hidden = self.first(difference)
        if self.context is not None:
            hidden = hidden + self.context(difference.mean(dim=(2, 3), keepdim=True))
        hidden = self.middle(hidden)
        batch, steps, branches = STRENGTHS.shape
        if self.folded:
            strengths = STRENGTHS.to(self.dtype).view(batch, steps, branches, 1, 1, 1)
            per_branch = hidden.view(batch, 1, branches, -1, hidden.shape[2], hidden.shape[3])
            # A channel of each branch's strength is added: it multiplies the bias of the branch's last layer.
            scaled = (per_branch * strengths).view(batch * steps, -1, hidden.shape[2], hidden.shape[3])
            ones = torch.ones_like(scaled[:, :1]) * strengths.view(batch * steps, branches, 1, 1)
            changes: Tensor = self.last(torch.cat([scaled, ones], dim=1)).float()
            return SOURCE.unsqueeze(1) + changes.view(batch, steps, *SOURCE.shape[1:])
        deltas = self.last(hidden).float().view(batch, branches, *SOURCE.shape[1:])
        features: Tensor = torch.ops.homomorph.interpolate(SOURCE, deltas, STRENGTHS)
        return features


def time_branches(
    parts: Parts, dtype: torch.dtype, source: Tensor, target: Tensor, strengths: Tensor, *, repeats: int
) -> dict[str, Timing]:
    """Time the three variants in turns, traced and frozen like the exported files.

    Args:
        parts: the exported modules.
        dtype: their number format.
        source: features [B, C, h, w].
        target: features [B, C, h, w].
        strengths: [B, S, K].
        repeats: turns that count, at least 10.

    Raises:
        AssertionError: they compute different features.
    """
    servables = [servable.get_submodule("branch") for servable in parts.branches.values()]
    with torch.inference_mode(False), torch.no_grad():
        example = tuple(tensor.clone() for tensor in (source, target, strengths))
        traced = [torchscript.trace(module, example[0]) for module in parts.branches.values()]
        modules: dict[str, torch.jit.ScriptModule] = {
            ONE_BY_ONE: torchscript.script(InterpolatorServable(traced)),
            AT_ONCE: torchscript.trace(JointBranches(servables, dtype, folded=False), *example),
            FOLDED: torchscript.trace(JointBranches(servables, dtype, folded=True), *example),
        }
        frozen = {name: torchscript.freeze(module) for name, module in modules.items()}
    reference = frozen[ONE_BY_ONE](source, target, strengths)
    for name, module in frozen.items():
        difference = ((module(source, target, strengths) - reference).abs().max() / reference.abs().max()).item()
        if difference > (_TOLERANCE if dtype == torch.float32 else 5 * _TOLERANCE):
            raise AssertionError(f"{name} and {ONE_BY_ONE} differ by {difference} of the largest feature")
    return time_in_turns(
        {name: _call(module, source, target, strengths) for name, module in frozen.items()},
        repeats=repeats,
        warm_up=3,
    )


def _layers(branch: nn.Module) -> list[nn.Module]:
    """Return a branch's layers in the order in which they run."""
    return [layer for layer in branch.modules() if not list(layer.children())]


def _joint_layer(layers: Sequence[nn.Module], *, grouped: bool) -> nn.Module:
    """Return one layer in place of the same layer of all branches."""
    first = layers[0]
    if not isinstance(first, nn.Conv2d):
        return first
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    count = len(convolutions)
    joint = nn.Conv2d(
        first.in_channels * (count if grouped else 1),
        first.out_channels * count,
        first.kernel_size,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        groups=count if grouped else 1,
        bias=first.bias is not None,
        dtype=first.weight.dtype,
    )
    joint.weight = nn.Parameter(torch.cat([layer.weight for layer in convolutions]))
    if first.bias is not None:
        joint.bias = nn.Parameter(torch.cat([layer.bias for layer in convolutions if layer.bias is not None]))
    return joint


def _summing_layer(layers: list[nn.Module]) -> nn.Conv2d:
    """Return one convolution that adds up the branches' last ones; each bias gets an input channel of its own."""
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first = convolutions[0]
    biases = first.weight.new_zeros(first.out_channels, len(convolutions), *first.kernel_size)
    for index, layer in enumerate(convolutions):
        if layer.bias is not None:
            biases[:, index, first.kernel_size[0] // 2, first.kernel_size[1] // 2] = layer.bias
    weight = torch.cat([*(layer.weight for layer in convolutions), biases], dim=1)
    joint = nn.Conv2d(
        weight.shape[1],
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=False,
        dtype=weight.dtype,
    )
    joint.weight = nn.Parameter(weight)
    return joint


def _call(module: torch.jit.ScriptModule, *inputs: Tensor) -> Callable[[], object]:
    return lambda: module(*inputs)
