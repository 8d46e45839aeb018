"""The networks published with HomoInterpGAN (Chen et al., CVPR 2019), so that its weights can be imported.

Pictures are float [B, 3, H, W], normalised with ImageNet's mean and deviation; features are [B, C, H/16, W/16].
Modules are named as in the published checkpoints, whose tensors then fit as they are.

D normalises over batches while it trains. In evaluation mode it uses the statistics that it has gathered, so that a
picture's result does not depend on its batch.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from homomorph.models.config import PublishedConfig

_POOLED = {"conv1_2", "conv2_2", "conv3_4", "conv4_4"}
"""VGG-19's convolutions at the ends of its stages."""


class PublishedEncoder(nn.Module):
    """E: picture [B, 3, H, W] -> features [B, C, H/16, W/16]: VGG-19 without BatchNorm, up to relu5_1."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        full, half, quarter, eighth = config.widths
        parts = {
            "features_1": {
                "conv1_1": (3, full),
                "conv1_2": (full, full),
                "conv2_1": (full, half),
                "conv2_2": (half, half),
                "conv3_1": (half, quarter),
            },
            "features_2": {
                "conv3_2": (quarter, quarter),
                "conv3_3": (quarter, quarter),
                "conv3_4": (quarter, quarter),
                "conv4_1": (quarter, eighth),
            },
            "features_3": {
                "conv4_2": (eighth, eighth),
                "conv4_3": (eighth, eighth),
                "conv4_4": (eighth, eighth),
                "conv5_1": (eighth, config.feature_channels),
            },
        }
        self.model = nn.Sequential(OrderedDict((name, _vgg_part(channels)) for name, channels in parts.items()))
        _start(self)

    def forward(self, picture: Tensor) -> Tensor:
        features: Tensor = self.model(picture)
        return features


class PublishedBranch(nn.Module):
    """T_i: difference of features [B, C, h, w] -> the part of it that belongs to one group, same shape.

    With biases T_i(0) is not 0, so a picture morphed into itself changes a little.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        channels = config.feature_channels
        self.model = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        _start(self)

    def forward(self, difference: Tensor) -> Tensor:
        delta: Tensor = self.model(difference)
        return delta


class PublishedDecoder(nn.Module):
    """D: features [B, C, h, w] -> picture [B, 3, 16h, 16w], without a final activation."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        full, half, quarter, eighth = config.widths
        self.model = nn.Sequential(
            *_normalised(config.feature_channels, eighth),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_normalised(eighth, quarter, quarter, quarter, quarter),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_normalised(quarter, half, half, half, half),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_normalised(half, full, full),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_normalised(full, full),
            nn.Conv2d(full, 3, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        picture: Tensor = self.model(features)
        return picture


def _vgg_part(channels: dict[str, tuple[int, int]]) -> nn.Sequential:
    """Return named 3x3 convolutions from and to these numbers of channels, with their ReLU and pooling."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, (inputs, outputs) in channels.items():
        layers[name] = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers[name.replace("conv", "relu")] = nn.ReLU()
        if name in _POOLED:
            layers[name.replace("conv", "pool")] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def _normalised(*channels: int) -> list[nn.Module]:
    """Return 3x3 convolutions from each number of channels to the next, with their BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return layers


def _start(network: nn.Module) -> None:
    """Keep the size of what passes the convolutions and their ReLU (He et al., 2015).

    With torch's own start it shrinks to less than half in each of E's thirteen layers, and all pictures look the same.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
