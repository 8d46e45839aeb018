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

from homomorph.models.cyclegan_config import CycleGANConfig, parse_generator


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

    def __init__(self, channels: int, config: CycleGANConfig) -> None:
        super().__init__()
        padding = {"replicate": nn.ReplicationPad2d, "zero_blocks": nn.ZeroPad2d}
        pad = padding.get(config.padding.replace("replicate_blocks", "replicate"), nn.ReflectionPad2d)
        self.conv_block = nn.Sequential(
            pad(1),
            nn.Conv2d(channels, channels, 3),
            _norm(channels, config),
            nn.ReLU(),
            pad(1),
            nn.Conv2d(channels, channels, 3),
            _norm(channels, config),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv_block(x)
        return x + change


class ResnetGenerator(nn.Module):
    """Picture -> picture of the same shape, H and W multiples of 4, after Johnson et al. (ECCV 2016).

    Args:
        config: filters are channels at the picture's own resolution, blocks are at a quarter of it.
    """

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__()
        self.config = config
        filters, (_, blocks) = config.filters, parse_generator(config.generator)
        pad = nn.ReplicationPad2d if config.padding == "replicate" else nn.ReflectionPad2d
        layers: list[nn.Module] = [pad(3), *_normalised(nn.Conv2d(config.channels_in, filters, 7), config)]
        for channels in (filters, 2 * filters):
            layers += _normalised(nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1), config)
        layers += [_ResnetBlock(4 * filters, config) for _ in range(blocks)]
        for channels in (4 * filters, 2 * filters):
            up = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)
            layers += _normalised(up, config)
        layers += [pad(3), nn.Conv2d(filters, config.channels_out, 7), nn.Identity()]
        self.model = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        seen = _as_seen(picture, self.config)
        return _as_picture(self.model(seen), seen, self.config)


class _UnetLevel(nn.Module):
    """One level of a U-Net: down, the inner levels, up. Except in the outermost, the input is appended to the output.

    Args:
        outer: input channels; also output channels, without the appended input.
        inner: channels after the convolution down.
        within: the next inner level; None in the innermost level.
        config: of the generator.
        picture_channels: output channels of the outermost level; None in all other levels.
    """

    def __init__(
        self,
        outer: int,
        inner: int,
        within: nn.Module | None,
        config: CycleGANConfig,
        *,
        picture_channels: int | None = None,
    ) -> None:
        super().__init__()
        down = nn.Conv2d(outer, inner, 4, stride=2, padding=1)
        widened = 2 * inner if within is not None else inner
        self.outermost = picture_channels is not None
        up = nn.ConvTranspose2d(widened, picture_channels or outer, 4, stride=2, padding=1)
        if self.outermost:
            assert within is not None
            layers = [down, within, nn.ReLU(), up, nn.Identity()]
        elif within is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, _norm(outer, config)]
        else:
            normalised = [down, _norm(inner, config), within, nn.ReLU(), up, _norm(outer, config)]
            layers = [nn.LeakyReLU(0.2), *normalised]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.model(x)
        if self.outermost:
            return inside
        # The published implementation applies its first LeakyReLU in place, so it also changes the appended input.
        return torch.cat([F.leaky_relu(x, 0.2), inside], dim=1)


class UnetGenerator(nn.Module):
    """Picture -> picture of the same shape, H and W multiples of 2 ** levels, after Isola et al. (CVPR 2017).

    Args:
        config: filters are channels after the first halving.
    """

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__()
        self.config = config
        levels = parse_generator(config.generator)[1].bit_length() - 1
        widths = [config.filters * min(2**level, 8) for level in range(levels)]
        level: nn.Module | None = None
        for outer, inner in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            level = _UnetLevel(outer, inner, level, config)
        self.model = _UnetLevel(config.channels_in, config.filters, level, config, picture_channels=config.channels_out)

    def forward(self, picture: Tensor) -> Tensor:
        seen = _as_seen(picture, self.config)
        return _as_picture(self.model(seen), seen, self.config)


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
    kind, _ = parse_generator(config.generator)
    return ResnetGenerator(config) if kind == "resnet" else UnetGenerator(config)


def _as_seen(picture: Tensor, config: CycleGANConfig) -> Tensor:
    """Return a picture [B, 3, H, W] as the generator sees it: coloured, or grey with one channel."""
    if config.channels_in == 3:
        return picture
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=picture.dtype, device=picture.device).view(1, 3, 1, 1)
    return (picture * weights).sum(dim=1, keepdim=True)


def _as_picture(made: Tensor, seen: Tensor, config: CycleGANConfig) -> Tensor:
    """Make a picture [B, 3, H, W] in [-1, 1] from the last convolution's output and the generator's input."""
    if config.output == "sigmoid":
        made = 2 * made.sigmoid() - 1
    elif config.output == "tanh":
        made = made.tanh()
    if config.residual:
        # A change in [-1, 1] that counts twice can turn black white and white black.
        made = seen + config.residual_scale * made
    if config.residual or config.output == "none":
        made = made.clamp(-1, 1)
    return made.expand(-1, 3, -1, -1) if config.channels_out == 1 else made


def _norm(channels: int, config: CycleGANConfig) -> nn.Module:
    return _InstanceNorm(channels) if config.norm == "instance" else nn.Identity()


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d, config: CycleGANConfig) -> list[nn.Module]:
    return [convolution, _norm(convolution.out_channels, config), nn.ReLU()]


def start(network: nn.Module) -> None:
    """Set convolutions to a normal distribution of deviation 0.02 and biases to 0, as the paper starts."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
