"""Predicts features from labels, so that a picture can be edited without a second picture.

F(z) = base + sum_l z_l beta_l is the least-squares prediction of a picture's features from its labels. T_i reads from
it the part of group i: F = F_a + v_i T_i(F(z) - F_a) gives the picture the labels z in group i, and leaves the others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.models.config import ModelConfig


class LabelFeatures(nn.Module):
    """Labels [B, L] -> features [B, C, h, w]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = (config.network.feature_channels, config.feature_size, config.feature_size)
        self.base = nn.Buffer(torch.zeros(shape))
        self.labels = nn.Buffer(torch.zeros(len(config.attributes), *shape))

    def forward(self, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Predict features from labels.

        Args:
            labels: [B, L] in [0, 1].
            size: height and width of the features; what was fitted at another size is resized.
        """
        features: Tensor = self.base + torch.tensordot(labels, self.labels, dims=1)
        return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
