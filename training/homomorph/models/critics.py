"""Networks that exist only during training: critics, attribute head, label prototypes, knowledge guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class FeatureCritic(nn.Module):
    """Dis and the attribute head A' on features [B, C, h, w]; they share a trunk."""

    def __init__(self, feature_channels: int, attributes: int, width: int = 128) -> None:
        super().__init__()
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


class RestReader(nn.Module):
    """Reads labels from features of which a group's part has been taken away, and learns to find what was left."""

    def __init__(self, feature_channels: int, attributes: int, width: int = 96) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(feature_channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(4),  # where something is matters
            nn.Flatten(),
            nn.Linear(16 * width, attributes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, C, h, w] -> logits [N, L]."""
        logits: Tensor = self.model(features)
        return logits


class PartReader(nn.Module):
    """Reads each group's labels from T_i(F), averaged over the picture: linearly, and wherever in it they show."""

    def __init__(self, groups: Mapping[str, Sequence[str]], feature_channels: int) -> None:
        super().__init__()
        self.readers = nn.ModuleList(nn.Linear(feature_channels, len(names)) for names in groups.values())

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """T_i(F) of each labelled group, [B, C, h, w] -> logits [B, L]."""
        logits = []
        for reader, part in zip(self.readers, parts, strict=True):
            code = part.mean(dim=(2, 3))
            # Of unit size, as some groups take up little of the features.
            logits.append(reader(code / (code.detach().square().mean().sqrt() + 1e-6)))
        return torch.cat(logits, dim=1)


class PictureCritic(nn.Module):
    """Label-conditional critic on pictures [B, 3, H, W]: is each part of it real, and does it show these labels?

    Score = psi(h) + <W (2z - 1), h>, the projection discriminator of Miyato and Koyama (2018), spectrally
    normalised. Where a classifier of labels can be fooled by coloured spots, this one learns against them. Parts are
    judged one by one, as a PatchGAN does (Isola et al., 2017): what is half way between two hair cuts may be a third
    one, but each piece of it has to be hair or background and not a mixture.
    """

    def __init__(self, attributes: int, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        channels = 12
        for index, out in enumerate(widths):
            stride = 1 if index == 0 else 2
            layers += [spectral_norm(nn.Conv2d(channels, out, 3, stride=stride, padding=1)), nn.LeakyReLU(0.2)]
            channels = out
        layers += [spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.realism = spectral_norm(nn.Linear(channels, 1))
        self.projection = spectral_norm(nn.Linear(attributes, channels, bias=False))

    def forward(self, pictures: Tensor, labels: Tensor, conditional: Tensor) -> Tensor:
        """Score pictures.

        Args:
            pictures: [B, 3, H, W], normalised.
            labels: [B, L] in [0, 1].
            conditional: [B] of 0/1; where 0, only realism is judged.

        Returns:
            Hinge scores of overlapping parts, [B, H/8, W/8].
        """
        parts = self.trunk(pictures).movedim(1, 3)
        match = (self.projection(2 * labels - 1)[:, None, None] * parts).sum(dim=3)
        score: Tensor = self.realism(parts).squeeze(3) + conditional[:, None, None] * match
        return score


def recoloured(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Give each picture [B, 3, H, W] colours of its own: turned in hue, more or less vivid, contrasty and bright.

    Half way between two skins lies a colour that no picture has, and rightly so. A critic that sees all pictures
    recoloured judges shapes, and whether a region is of one colour, and not which one. (Karras et al., "Training
    Generative Adversarial Networks with Limited Data", NeurIPS 2020, augment a critic's pictures so.)
    """
    count = len(pictures)
    turn, vivid, contrast, light = torch.rand(4, count, generator=generator).to(pictures.device)
    # A rotation about the axis of greys, blended with the projection onto it.
    cos, sin = (2 * torch.pi * turn).cos().view(-1, 1, 1), (2 * torch.pi * turn).sin().view(-1, 1, 1)
    eye = torch.eye(3, device=pictures.device)
    grey = torch.full((3, 3), 1 / 3, device=pictures.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=pictures.device) / 3**0.5
    rotation = grey + cos * (eye - grey) + sin * cross
    saturation = (1.5 * vivid).view(-1, 1, 1)
    mix = (0.7 + 0.6 * contrast).view(-1, 1, 1) * (grey + saturation * (rotation - grey))
    shift = (0.6 * light - 0.3).view(-1, 1, 1, 1)
    mixed: Tensor = torch.einsum("bij,bjhw->bihw", mix, pictures.float()) + shift
    return mixed


class Prototypes(nn.Module):
    """c_i: what each label of a group looks like as features, learned beside the branches."""

    def __init__(self, groups: Mapping[str, Sequence[str]], feature_channels: int, feature_size: int) -> None:
        super().__init__()
        shape = (feature_channels, feature_size, feature_size)
        # A list, in the order of the labels' columns: ParameterDict would sort the groups by name.
        self.maps = nn.ParameterList(torch.zeros(len(names), *shape) for names in groups.values())

    def forward(self, change: Tensor) -> Tensor:
        """Map changes of the labels z_b - z_a [B, L] to differences of prototypes [B, G, C, h, w]."""
        parts = change.split([len(prototypes) for prototypes in self.maps], dim=1)
        maps = zip(parts, self.maps, strict=True)
        return torch.stack([torch.tensordot(part, prototypes, dims=1) for part, prototypes in maps], dim=1)


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
