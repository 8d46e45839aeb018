"""The networks of a run as they are exported: inference-folded, in one number format, with the served signatures.

Every file format is made from these modules, so that all formats hold the same arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph_export.folding import folded
from homomorph_export.servable import BranchServable, DecoderServable, EncoderServable


@dataclass(frozen=True)
class Parts:
    """What weights there are to export; the other served models are made of these."""

    encoder: nn.Module
    branches: dict[str, nn.Module]
    """The T_i by their groups, in the order of the strengths' columns."""
    decoder: nn.Module
    label_features: LabelFeatures | None
    """None if the run does not know what labels look like. Always float32: it is one product, not a network."""
    picture: Tensor
    """An example of the encoder's input, uint8 [B, H, W, 3]."""
    features: Tensor
    """An example of a branch's input, float32 [B, C, h, w]."""

    @property
    def corners(self) -> Tensor:
        """An example of features to mix, float32 [B, P, C, h, w]."""
        return self.features.unsqueeze(1).repeat(1, 4, 1, 1, 1)

    @property
    def places(self) -> Tensor:
        """An example of where frames stand between them, float32 [B, S, 2]."""
        return torch.rand(len(self.picture), 3, 2)

    @property
    def frame_features(self) -> Tensor:
        """An example of the decoder's input, float32 [B, S, C, h, w]."""
        return self.features.unsqueeze(1)


def exported_parts(model: MorphModel, label_features: LabelFeatures | None, dtype: torch.dtype) -> Parts:
    """Wrap copies of a run's networks.

    Args:
        model: the run's networks; they stay as they are.
        label_features: the run's, if it has them.
        dtype: number format of the weights and of the arithmetic. The served tensors keep theirs.
    """
    config = model.config
    network, size, cells = config.network, config.picture_size, config.feature_size

    def converted(part: nn.Module) -> nn.Module:
        return folded(part).to(dtype)

    return Parts(
        encoder=EncoderServable(converted(model.encoder), network, dtype),
        branches={name: BranchServable(converted(branch), dtype) for name, branch in model.branches.items()},
        decoder=DecoderServable(converted(model.decoder), network, dtype),
        label_features=label_features,
        picture=torch.zeros(2, size, size, 3, dtype=torch.uint8),
        features=torch.zeros(2, network.feature_channels, cells, cells),
    )
