"""Phi: the pretrained network whose features say how alike two pictures look, and guide the encoder.

`small` is a VGG of our own. It is trained on the data's labels first, and needs no download. `vgg19` is torchvision's,
trained on ImageNet; torchvision downloads it once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.errors import ConfigError


class SmallVgg(nn.Module):
    """VGG's pattern at a tenth of its width; five stages, each ending at half the resolution of the one before."""

    deep_channels = 128

    def __init__(self, attributes: int) -> None:
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2_1 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3_1 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv4_1 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv5_1 = nn.Conv2d(128, self.deep_channels, 3, padding=1)
        self.classifier = nn.Linear(self.deep_channels, attributes)

    def relu3_1(self, pictures: Tensor) -> Tensor:
        """Normalised pictures [B, 3, H, W] -> [B, 64, H/4, W/4]."""
        x = F.max_pool2d(F.relu(self.conv1_1(pictures)), 2)
        x = F.max_pool2d(F.relu(self.conv2_1(x)), 2)
        return F.relu(self.conv3_1(x))

    def relu5_1(self, shallow: Tensor) -> Tensor:
        """relu3_1 [B, 64, H/4, W/4] -> [B, 128, H/16, W/16]."""
        x = F.relu(self.conv4_1(F.max_pool2d(shallow, 2)))
        return F.relu(self.conv5_1(F.max_pool2d(x, 2)))

    def logits(self, pictures: Tensor) -> Tensor:
        """Normalised pictures [B, 3, H, W] -> attributes' logits [B, L]."""
        deep = self.relu5_1(self.relu3_1(pictures))
        logits: Tensor = self.classifier(deep.mean(dim=(2, 3)))
        return logits


class Vgg19(nn.Module):
    """torchvision's VGG-19, up to relu5_1, with ImageNet weights."""

    deep_channels = 512

    def __init__(self, picture_mean: tuple[float, ...], picture_std: tuple[float, ...]) -> None:
        super().__init__()
        from torchvision.models import VGG19_Weights, vgg19

        try:
            layers = vgg19(weights=VGG19_Weights.IMAGENET1K_V1).features
        except OSError as error:
            raise ConfigError(
                f"recipe.phi=vgg19 needs torchvision's ImageNet weights, which could not be downloaded ({error}): "
                "set it to small, or put the file into torch's hub cache"
            ) from error
        self.scale: Tensor
        self.offset: Tensor
        self._shallow, self._deep = layers[:12], layers[12:30]
        # From the data's normalisation to ImageNet's.
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("scale", (torch.tensor(picture_std) / std).view(1, 3, 1, 1))
        self.register_buffer("offset", ((torch.tensor(picture_mean) - mean) / std).view(1, 3, 1, 1))

    def relu3_1(self, pictures: Tensor) -> Tensor:
        """Normalised pictures [B, 3, H, W] -> [B, 256, H/4, W/4]."""
        features: Tensor = self._shallow(pictures * self.scale + self.offset)
        return features

    def relu5_1(self, shallow: Tensor) -> Tensor:
        """relu3_1 [B, 256, H/4, W/4] -> [B, 512, H/16, W/16]."""
        features: Tensor = self._deep(shallow)
        return features


Perceptual = SmallVgg | Vgg19


def perceptual_distance(maps_a: list[Tensor], maps_b: list[Tensor]) -> Tensor:
    """d between pictures by their maps [B, C, h, w] of several layers -> [B]; LPIPS's form, without its weights.

    Each map is normalised to unit length across channels; squared differences are averaged over the map.
    (Zhang et al., CVPR 2018.)
    """
    total = torch.zeros(len(maps_a[0]), device=maps_a[0].device)
    for a, b in zip(maps_a, maps_b, strict=True):
        # In float32, because small distances matter.
        difference = F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)
        total = total + difference.square().sum(dim=1).mean(dim=(1, 2))
    return total
