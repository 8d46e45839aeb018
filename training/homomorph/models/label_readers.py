"""Linear readers of labels: they read a group's labels from the part of a picture's features that its T_i takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from homomorph.models.config import ModelConfig


class LabelReaders(nn.Module):
    """One linear map a group, from T_i(F) to the logits of the group's labels. Only a training needs them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        values = config.network.feature_channels * config.feature_size**2
        self.readers = nn.ModuleDict({group: nn.Linear(values, len(names)) for group, names in config.groups.items()})

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        """Read labels: T_i(F) of each group, [B, C, h, w] each -> logits [B, L]."""
        return torch.cat([reader(parts[group].flatten(1)) for group, reader in self.readers.items()], dim=1)
