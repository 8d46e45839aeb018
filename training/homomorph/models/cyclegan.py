"""CycleGAN's generators and its discriminator (Zhu et al., "Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks", ICCV 2017).

Pictures are float [B, 3, H, W] in [-1, 1]. Modules are named and numbered as in the checkpoints of the PyTorch
implementation in wide use (`pytorch-CycleGAN-and-pix2pix`), whose tensors then fit as they are. InstanceNorm always
uses the picture's own statistics and has no weights, so that a result does not depend on its batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.models.cyclegan_config import CycleGANConfig


class _InstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm that, in training, gives back the layout that it got.

    torch computes it channels first, and what follows would be computed in that layout or copied again and again.
    """

    def forward(self, x: Tensor) -> Tensor:
        normalised = super().forward(x)
        if self.training and x.is_contiguous(memory_format=torch.channels_last):
            return normalised.contiguous(memory_format=torch.channels_last)
        return normalised


class _ResnetBlock(nn.Module):
    """x + norm(conv(act(norm(conv(x))))), shape kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _InstanceNorm(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _InstanceNorm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv_block(x)
        return x + change


class ResnetGenerator(nn.Module):
    """Picture -> picture of the same shape, H and W multiples of 4, after Johnson et al. (ECCV 2016).

    Args:
        filters: channels at the picture's own resolution.
        blocks: residual blocks at a quarter of it.
        residual: see `CycleGANConfig.residual`.
    """

    def __init__(self, filters: int, blocks: int, *, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_normalised(nn.Conv2d(3, filters, 7))]
        for channels in (filters, 2 * filters):
            layers += _normalised(nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1))
        layers += [_ResnetBlock(4 * filters) for _ in range(blocks)]
        for channels in (4 * filters, 2 * filters):
            layers += _normalised(nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1))
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(filters, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        made: Tensor = self.model(picture)
        return _added(picture, made) if self.residual else made


class _UnetLevel(nn.Module):
    """One level of a U-Net: down, the levels within, up; and what came in beside it, but for the outermost.

    Args:
        outer: channels that come in and, as many again, go out.
        inner: channels after the way down.
        within: the next level; None for the innermost.
        outermost: whether pictures come in and go out.
    """

    def __init__(self, outer: int, inner: int, within: nn.Module | None, *, outermost: bool = False) -> None:
        super().__init__()
        down = nn.Conv2d(outer, inner, 4, stride=2, padding=1)
        up = nn.ConvTranspose2d(2 * inner if within is not None else inner, outer, 4, stride=2, padding=1)
        self.outermost = outermost
        if outermost:
            assert within is not None
            layers = [down, within, nn.ReLU(), up, nn.Tanh()]
        elif within is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, _InstanceNorm(outer)]
        else:
            normalised = [down, _InstanceNorm(inner), within, nn.ReLU(), up, _InstanceNorm(outer)]
            layers = [nn.LeakyReLU(0.2), *normalised]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.model(x)
        if self.outermost:
            return inside
        # The implementation in use applies its first LeakyReLU in place: what skips the level has passed it too.
        return torch.cat([F.leaky_relu(x, 0.2), inside], dim=1)


class UnetGenerator(nn.Module):
    """Picture -> picture of the same shape, H and W multiples of 2 ** levels, after Isola et al. (CVPR 2017).

    Args:
        filters: channels after the first halving.
        levels: how often a picture is halved.
        residual: see `CycleGANConfig.residual`.
    """

    def __init__(self, filters: int, levels: int, *, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        widths = [filters * min(2**level, 8) for level in range(levels)]
        level: nn.Module | None = None
        for outer, inner in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            level = _UnetLevel(outer, inner, level)
        self.model = _UnetLevel(3, filters, level, outermost=True)

    def forward(self, picture: Tensor) -> Tensor:
        made: Tensor = self.model(picture)
        return _added(picture, made) if self.residual else made


class PatchDiscriminator(nn.Module):
    """Picture -> a score for each overlapping patch of 70 x 70 pixels, [B, 1, h, w] (Isola et al., CVPR 2017)."""

    def __init__(self, filters: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, filters, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for channels, stride in ((filters, 2), (2 * filters, 2), (4 * filters, 1)):
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, stride=stride, padding=1),
                _InstanceNorm(2 * channels),
                nn.LeakyReLU(0.2),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * filters, 1, 4, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        scores: Tensor = self.model(picture)
        return scores


class CycleGAN(nn.Module):
    """The generators of one run by their directions; the state dict of its `model.safetensors`."""

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__()
        self.config = config
        self.generators = nn.ModuleDict({name: _generator(config) for name in config.directions})

    def forward(self, direction: str, picture: Tensor) -> Tensor:
        """Change pictures [B, 3, H, W] in [-1, 1]; the result has the same shape and range."""
        result: Tensor = self.generators[direction](picture)
        return result


def _generator(config: CycleGANConfig) -> nn.Module:
    kind, _, size = config.generator.partition("_")
    if kind == "resnet":
        return ResnetGenerator(config.filters, int(size.removesuffix("blocks")), residual=config.residual)
    return UnetGenerator(config.filters, levels=int(size).bit_length() - 1, residual=config.residual)


def _added(picture: Tensor, change: Tensor) -> Tensor:
    """Add a change in [-1, 1], which can turn black white and white black, and stay in the range of pictures."""
    return (picture + 2 * change).clamp(-1, 1)


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, _InstanceNorm(convolution.out_channels), nn.ReLU()]


def start(network: nn.Module) -> None:
    """Set convolutions to a normal distribution of deviation 0.02 and biases to 0, as the paper starts."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
