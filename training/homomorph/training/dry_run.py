"""Describes a training without starting it: its networks, their parameters, its memory and its configuration.

homomorph train data/avatars --out runs/avatars64 --dry-run
"""

from __future__ import annotations

from typing import Any

import torch
import yaml
from torch import Tensor

from homomorph.data.labels import LabelledPictures
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.method import Method
from homomorph.training.methods import make_method
from homomorph.training.settings import MorphPreset


def describe(data: LabelledPictures, preset: MorphPreset | CycleGANPreset, *, seed: int = 0) -> str:
    """Describe the training that a preset stands for, as text.

    Memory for activations is counted on the forward pass of one step of each phase; the largest counts.
    """
    method = make_method(data, preset, seed=seed)
    counts = {
        name.removeprefix("model."): sum(value.numel() for value in method.networks.get_submodule(name).parameters())
        for name in method.optimizers
    }
    # A weight, its gradient and at most two moments; and the running mean of the saved weights.
    saved = sum(value.numel() for value in method.mean_model.parameters())
    state_mb = 4 * (4 * sum(counts.values()) + saved) / 1e6
    known = data.known
    lines = [
        f"{len(data.paths)} pictures, {int(known.all(axis=1).sum())} with all labels, "
        f"{100 * known.mean():.0f} % of all labels known",
        f"parameters: {', '.join(f'{name} {count:,}' for name, count in counts.items())}",
        f"memory: about {state_mb:.0f} MB for weights, gradients and optimizers, "
        f"and {_activation_bytes(method, preset) / 1e6:.0f} MB for a step's activations",
        yaml.safe_dump(_plain(method.settings), sort_keys=False),
    ]
    return "\n".join(lines)


def _activation_bytes(method: Method[Any, Any, Any], preset: MorphPreset | CycleGANPreset) -> int:
    """Count the bytes that autograd keeps in a step, in the phase in which it keeps most."""
    last_steps = {method.phase(step): step for step in range(preset.steps)}
    return max(_kept_bytes(method, step) for step in last_steps.values())


def _kept_bytes(method: Method[Any, Any, Any], step: int) -> int:
    """Count the bytes that autograd keeps in one step."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = method.prepare(method.batches[step])
    draws = method.draw(batch, step, torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = method.forward(batch, draws)
        method.terms(batch, draws, output)
    return sum(kept.values())


def _plain(value: Any) -> Any:
    """Turn tuples into lists, which YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
