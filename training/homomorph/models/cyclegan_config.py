"""Configuration of a CycleGAN run: its generator and the directions in which it changes a picture."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from homomorph.errors import ConfigError
from homomorph.models.config import MAX_BLOCKS, MAX_CHANNELS, MAX_SIDE, check_name, checked

GENERATORS = ("resnet_6blocks", "resnet_9blocks", "unet_64", "unet_128", "unet_256", "unet_512")
"""Names of common generators. A ResNet may have any number of blocks, a U-Net any power of two as its size.

A U-Net halves a picture of its size until one pixel is left.
"""
Norm = Literal["instance", "none"]
"""Layer after a convolution: InstanceNorm without weights, or none, for example if BatchNorm was folded."""
Padding = Literal["reflect", "replicate", "replicate_blocks", "zero_blocks"]
"""Padding in a ResNet: mirrored edges, repeated edges or zeros. With `_blocks`, only the residual blocks use it, and
the picture's edges are mirrored."""
OutputRange = Literal["tanh", "sigmoid", "none"]
"""Range of the last layer: -1 to 1, 0 to 1, or unbounded and clipped to -1 to 1."""
SMALLEST_SIDE = 8
"""Least height and width of a picture. A ResNet's blocks need features of two pixels a side."""


@dataclass(frozen=True)
class CycleGANConfig:
    """One CycleGAN model. Its run's `config.json` holds these values."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    picture_mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    """Mean and deviation bring pictures to [-1, 1], for the generators' inputs and outputs."""
    picture_std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)

    directions: tuple[str, ...]
    """Direction of each generator, such as `smiling` and `not_smiling`. An imported run has one generator."""
    generator: str = "resnet_6blocks"
    """One of `GENERATORS`."""
    filters: int = 64
    """Channels at the picture's own resolution, `ngf`."""
    picture_size: int = 64
    """Height and width in pixels that the generators were trained at; other multiples of the stride work too."""
    residual: bool = False
    """Whether the generators' output is added to the picture, instead of replacing it.

    This is easier to learn, because most of a picture stays the same. Published generators do not add.
    """
    residual_scale: float = 2.0
    """Factor of the output that is added. With 2, black can become white. DeblurGAN's `learn_residual` is 1."""
    norm: Norm = "instance"
    padding: Padding = "reflect"
    """For a ResNet only."""
    output: OutputRange = "tanh"
    channels_in: int = 3
    """Input channels: 3, or 1 for grey pictures, with ITU-R BT.601's weights of the colours."""
    channels_out: int = 3
    """Output channels: 3, or 1 for grey pictures."""
    method: Literal["cyclegan"] = "cyclegan"
    """Name of this kind of model in a run's `config.json`."""

    def __post_init__(self) -> None:
        parse_generator(self.generator)
        if not {self.channels_in, self.channels_out} <= {1, 3}:
            raise ConfigError(f"channels must be 1 or 3, not {self.channels_in} and {self.channels_out}")
        if self.residual and not 0 < self.residual_scale <= 16:
            raise ConfigError(f"residual_scale must be more than 0, at most 16, not {self.residual_scale}")
        if self.residual and self.channels_in < self.channels_out:
            raise ConfigError("a residual generator of coloured pictures sees coloured ones")
        if not 1 <= self.filters <= MAX_CHANNELS:
            raise ConfigError(f"filters must be at least 1, at most {MAX_CHANNELS}, not {self.filters}")
        if self.picture_size < self.stride or self.picture_size % self.stride:
            raise ConfigError(
                f"picture_size must be a positive multiple of {self.stride} for {self.generator}, "
                f"not {self.picture_size}"
            )
        if not SMALLEST_SIDE <= self.picture_size <= MAX_SIDE:
            raise ConfigError(
                f"picture_size must be at least {SMALLEST_SIDE}, at most {MAX_SIDE}, not {self.picture_size}"
            )
        if not self.directions or len(set(self.directions)) < len(self.directions):
            raise ConfigError(f"directions must be different names, not {', '.join(self.directions) or 'none'}")
        for name in self.directions:
            check_name("direction", name)

    @property
    def stride(self) -> int:
        """A picture's height and width must be multiples of it."""
        kind, size = parse_generator(self.generator)
        return 4 if kind == "resnet" else size

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back and JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CycleGANConfig:
        """Rebuild a configuration.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        return checked(cls, values)


def parse_generator(name: str) -> tuple[str, int]:
    """Return the kind of a generator, `resnet` or `unet`, and its number of blocks or its size.

    Raises:
        ConfigError: there is no generator of that name.
    """
    if (match := re.fullmatch(r"resnet_(\d{1,4})blocks", name)) and 1 <= int(match[1]) <= MAX_BLOCKS:
        return "resnet", int(match[1])
    if (match := re.fullmatch(r"unet_(\d{1,4})", name)) and int(match[1]) in (32, 64, 128, 256, 512, 1024):
        return "unet", int(match[1])
    raise ConfigError(f"generator must be {' or '.join(GENERATORS)}, not {name[:80]!r}")
