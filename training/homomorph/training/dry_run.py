"""What a training would be: its networks, their parameters, its memory, its configuration; nothing is computed.

homomorph train data/avatars --out runs/avatars64 --dry-run
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from homomorph.data.labels import LabelledPictures
from homomorph.models.config import ModelConfig
from homomorph.models.perceptual import Perceptual, SmallVgg, Vgg19
from homomorph.training.networks import Networks
from homomorph.training.parallel import Processes
from homomorph.training.recipe import Preset, Recipe
from homomorph.training.trainer import settings_of

_BYTES = 4
"""Of a float32."""


@dataclass(frozen=True)
class Plan:
    """A training that has not begun."""

    parameters: dict[str, int]
    """Parameters of each network."""
    state_bytes: int
    """Weights, their running mean, gradients and Adam's moments."""
    activation_bytes: int
    """What one step keeps for its gradients, an estimate: every layer's output and what is computed from it."""
    pictures: int
    """Pictures in the data."""
    complete: int
    """Pictures whose labels are all known."""
    settings: dict[str, Any]
    """The resolved configuration."""

    def __str__(self) -> str:
        width = max(map(len, self.parameters))
        rows = [f"  {name:{width}}  {count:>12,}" for name, count in self.parameters.items()]
        megabytes = [round(value / 1e6) for value in (self.state_bytes, self.activation_bytes)]
        return "\n".join(
            [
                f"{self.pictures} pictures, {self.complete} with all labels",
                "parameters",
                *rows,
                f"memory: about {sum(megabytes)} MB and the libraries' own: {megabytes[0]} MB for weights, "
                f"gradients and Adam, about {megabytes[1]} MB for a step's activations",
                json.dumps(self.settings, indent=2),
            ]
        )


def plan(
    data: LabelledPictures,
    *,
    preset: Preset,
    recipe: Recipe,
    steps: int,
    phi: str,
    seed: int,
    init: Path | None = None,
    processes: Processes | None = None,
) -> Plan:
    """Describe the training that `trainer.train` would run with the same arguments."""
    config = ModelConfig(groups=data.groups, picture_size=preset.picture_size, network=preset.network)
    # Tensors of the device meta have shapes and no memory.
    with torch.device("meta"):
        perceptual: Perceptual = (
            Vgg19(preset.network.picture_mean, preset.network.picture_std, pretrained=False)
            if phi == "vgg19"
            else SmallVgg(len(config.attributes))
        )
        nets = Networks(config, perceptual)
        activations = 2 * _BYTES * _outputs(nets, preset, recipe)
    parts: dict[str, nn.Module] = {"E": nets.model.encoder}
    parts |= {f"T_{name}": branch for name, branch in nets.model.branches.items()}
    parts |= {
        "D": nets.model.decoder,
        "Dis and A'": nets.critic,
        "picture critic": nets.picture_critic,
        "readers of the parts": nets.part_reader,
        "reader of the rest": nets.rest_reader,
        "P": nets.guidance,
        "prototypes": nets.prototypes,
        "label prior": nets.label_prior,
        "Phi": nets.phi,
    }
    counts = {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}
    served = sum(value.numel() for value in nets.model.parameters())
    kept = counts["Phi"] + counts["label prior"]
    trained = sum(counts.values()) - kept
    return Plan(
        parameters=counts,
        # A weight, its gradient and two moments; the running mean of what is served; what has learned before.
        state_bytes=_BYTES * (4 * trained + served + kept),
        activation_bytes=activations,
        pictures=len(data.paths),
        complete=int(data.known.all(axis=1).sum()),
        settings=settings_of(config, preset, recipe, steps, phi, seed, init, processes or Processes()),
    )


def _outputs(nets: Networks, preset: Preset, recipe: Recipe) -> int:
    """Count the numbers that the layers give out in a step of the last phase, which has all terms."""
    total = 0

    def add(_: nn.Module, __: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    hooks = [part.register_forward_hook(add) for part in nets.modules() if not list(part.children())]
    pairs = preset.batch_size
    pictures = torch.empty(preset.batch_size, 3, preset.picture_size, preset.picture_size)
    features = nets.model.encoder(pictures)
    nets.model.deltas(features[:pairs], features[:pairs])
    # Reconstruction, counterfactual, and the ways that are looked at.
    frames = pictures.new_empty(recipe.path_pairs(pairs) * (2 + 2 * recipe.path_steps), *pictures.shape[1:])
    for count in (preset.batch_size, pairs // 2, len(frames)):
        nets.model.decoder(features.new_empty(count, *features.shape[1:]))
    for seen in (pictures, pictures, frames):
        nets.phi.relu5_1(nets.phi.relu3_1(seen))
    labels = torch.empty(pairs, nets.critic.attributes.out_features)
    nets.label_prior(labels, torch.empty(pairs, 2, 3))
    # Each of its own steps, then the step of what it judges; the reader's, once for every group.
    for _ in range(2 * len(nets.model.config.groups)):
        nets.rest_reader(features)
    for _ in range(4):
        nets.critic(features)
        nets.picture_critic(pictures, labels, labels[:, 0])
    for hook in hooks:
        hook.remove()
    return total
