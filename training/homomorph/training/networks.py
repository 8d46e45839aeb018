"""All networks of a training, and the optimizers that update them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from homomorph.models.config import ModelConfig
from homomorph.models.critics import FeatureCritic, Guidance, PartReader, PictureCritic, Prototypes, RestReader
from homomorph.models.label_prior import LabelPrior
from homomorph.models.morph import MorphModel
from homomorph.models.perceptual import Perceptual
from homomorph.training.recipe import Preset, Recipe


class Networks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    def __init__(self, config: ModelConfig, phi: Perceptual) -> None:
        super().__init__()
        attributes, channels = len(config.attributes), config.network.feature_channels
        self.model = MorphModel(config)
        self.ema = MorphModel(config).eval().requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.critic = FeatureCritic(channels, attributes)
        self.picture_critic = PictureCritic(attributes)
        self.guidance = Guidance(channels, phi.deep_channels)
        self.prototypes = Prototypes(config.groups, channels, config.feature_size)
        self.label_prior = LabelPrior(attributes, config.picture_size)
        self.phi = phi
        self.part_reader = PartReader(config.groups, channels)
        self.rest_reader = RestReader(channels, attributes)


def make_optimizers(nets: Networks, preset: Preset, recipe: Recipe) -> dict[str, torch.optim.Adam]:
    """Adam for each network; D always keeps the default betas."""

    def adam(network: nn.Module, rate: float, beta: float) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), rate, betas=(beta, 0.999), fused=True)

    return {
        "encoder": adam(nets.model.encoder, preset.learning_rate, recipe.beta1),
        "branches": adam(nets.model.branches, preset.learning_rate, recipe.beta1),
        "decoder": adam(nets.model.decoder, preset.learning_rate, 0.9),
        "guidance": adam(nets.guidance, preset.critic_learning_rate, 0.5),
        "prototypes": adam(nets.prototypes, 10 * preset.critic_learning_rate, 0.9),
        "part_reader": adam(nets.part_reader, 5 * preset.critic_learning_rate, 0.9),
        "critic": adam(nets.critic, preset.critic_learning_rate, 0.5),
        "rest_reader": adam(nets.rest_reader, 5 * preset.critic_learning_rate, 0.5),
        "picture_critic": adam(nets.picture_critic, preset.critic_learning_rate, 0.5),
    }


def set_rates(optimizers: dict[str, torch.optim.Adam], preset: Preset, done: float) -> None:
    """Let the rates of what is served rise for a fiftieth of the steps, then fall along a cosine to a twentieth.

    `done` is a share of the steps. At first prototypes and critics know nothing, and what they ask for is wrong.
    """
    share = (0.05 + 0.95 * (1 + np.cos(np.pi * done)) / 2) * min(1.0, 0.01 + 50 * done)
    for name in ("encoder", "branches", "decoder"):
        optimizers[name].param_groups[0]["lr"] = preset.learning_rate * share
