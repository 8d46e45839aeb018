"""Networks that exist only during training: critics, the attribute head, knowledge guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Judgement:
    """Outputs of `LabelCritic` for N pictures."""

    real: Tensor
    """Logit "a real picture", [N]."""
    values: Tensor
    """Logits "a real picture with the value 0, 1 of this label", [N, L, 2]."""
    labels: Tensor
    """Logits of the classifier of labels, [N, L]."""

    def with_labels(self, labels: Tensor) -> Tensor:
        """Choose the logit of each label's value; `labels` are 0/1, [N, L]; returns [N, L]."""
        return self.values[..., 0] + labels * (self.values[..., 1] - self.values[..., 0])

    def split(self, *counts: int) -> list[Judgement]:
        """Divide the pictures into runs of these lengths."""
        parts = zip(*(value.split(counts) for value in (self.real, self.values, self.labels)), strict=True)
        return [Judgement(*part) for part in parts]


class LabelCritic(nn.Module):
    """Critic on pictures with three kinds of logits: real, real with each value of each label, and each label itself.

    Each label has a logit for each of its values, so a picture of which some labels are unknown can be judged by the
    others. (After auxiliary classifier GANs, Odena et al., ICML 2017, and the many-headed critic of StarGAN v2, Choi et
    al., CVPR 2020.)
    """

    def __init__(self, attributes: int) -> None:
        super().__init__()
        self.attributes = attributes
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        channels = 12
        for index, width in enumerate((48, 96, 128, 192)):
            layers += [nn.Conv2d(channels, width, 3, stride=1 if index == 0 else 2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        # Sixteen means, not one over the whole picture, because places matter.
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, 256), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(256, 1 + 3 * attributes)

    def forward(self, pictures: Tensor) -> Judgement:
        """Judge normalised pictures [N, 3, H, W]."""
        outputs = self.head(self.trunk(pictures))
        real, values, labels = outputs.split([1, 2 * self.attributes, self.attributes], dim=1)
        return Judgement(real.squeeze(1), values.unflatten(1, (self.attributes, 2)), labels)


class FeatureCritic(nn.Module):
    """Dis and the attribute head A' on features [B, C, h, w]; they share a trunk."""

    def __init__(self, feature_channels: int, attributes: int) -> None:
        super().__init__()
        width = 128
        self.trunk = nn.Sequential(
            nn.Conv2d(feature_channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.realism = nn.Linear(width, 1)
        self.attributes = nn.Linear(width, attributes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Wasserstein score [B] and the attributes' logits [B, L]."""
        pooled = self.trunk(features).mean(dim=(2, 3))
        return self.realism(pooled).squeeze(1), self.attributes(pooled)


class Guidance(nn.Module):
    """P: one 1x1 convolution that predicts the perceptual network's deep features from E's.

    Features are pooled to the deep features' resolution first where the two networks' strides differ.
    """

    def __init__(self, feature_channels: int, deep_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(feature_channels, deep_channels, 1)

    def forward(self, features: Tensor, size: torch.Size) -> Tensor:
        """Map features [B, C, h, w] to [B, C', *size]."""
        pooled = F.adaptive_avg_pool2d(features, (size[0], size[1]))
        predicted: Tensor = self.project(pooled)
        return predicted
