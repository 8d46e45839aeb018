"""The model that is served: encoder E, one branch T_i per attribute group, decoder D, of either family.

Pictures are float [B, 3, H, W], normalised with the configuration's mean and deviation; features are
[B, C, H/stride, W/stride]. Everything is convolutional, so any H and W that are multiples of the stride work.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from homomorph.models.compact import Branch, Decoder, Encoder, start_as_projections
from homomorph.models.config import ModelConfig, PublishedConfig
from homomorph.models.published import PublishedBranch, PublishedDecoder, PublishedEncoder

MAX_STRENGTH = 2.0
"""Strengths go from 0 (as in the source) over 1 (as in the target) to this (exaggerated)."""


def interpolate(source: Tensor, deltas: Tensor, strengths: Tensor) -> Tensor:
    """F = F_a + sum_i v_i * T_i(F_b - F_a), for S strength vectors at once.

    Args:
        source: features of the source picture, [B, C, h, w].
        deltas: outputs of the K branches, [B, K, C, h, w].
        strengths: v, [B, S, K]; 0 leaves a group as in the source, 1 takes it from the target.

    Returns:
        Features [B, S, C, h, w].
    """
    return source.unsqueeze(1) + torch.einsum("bsk,bkchw->bschw", strengths, deltas)


class MorphModel(nn.Module):
    """E, all T_i and D of one configuration; the state dict of a run's `model.safetensors`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        self.branches: nn.ModuleDict
        self.decoder: nn.Module
        network = config.network
        if isinstance(network, PublishedConfig):
            self.encoder = PublishedEncoder(network)
            self.branches = nn.ModuleDict({name: PublishedBranch(network) for name in config.branches})
            self.decoder = PublishedDecoder(network)
        else:
            self.encoder = Encoder(network)
            branches = {name: Branch(network) for name in config.branches}
            start_as_projections(list(branches.values()), network.feature_channels)
            self.branches = nn.ModuleDict(branches)
            self.decoder = Decoder(network)

    def deltas(self, source: Tensor, target: Tensor) -> Tensor:
        """Apply every branch: features [B, C, h, w] twice -> [B, K, C, h, w]."""
        difference = target - source
        return torch.stack([branch(difference) for branch in self.branches.values()], dim=1)

    def forward(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Morph normalised pictures.

        Args:
            source: [B, 3, H, W], normalised.
            target: [B, 3, H, W], normalised.
            strengths: [B, S, K], columns in the order of `config.branches`.

        Returns:
            Normalised pictures [B, S, 3, H, W].
        """
        source_features, target_features = self.encoder(source), self.encoder(target)
        features = interpolate(source_features, self.deltas(source_features, target_features), strengths)
        frames: Tensor = self.decoder(features.flatten(0, 1))
        return frames.view(*strengths.shape[:2], *frames.shape[1:])


def parameter_counts(model: MorphModel) -> Mapping[str, int]:
    """Count the parameters of E, of all T_i together, and of D."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
