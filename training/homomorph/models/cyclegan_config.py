"""What defines a CycleGAN run: its generator and the directions that it can change a picture in."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from homomorph.errors import ConfigError
from homomorph.models.config import MAX_BLOCKS, MAX_CHANNELS, MAX_SIDE, check_name, checked

GENERATORS = ("resnet_6blocks", "resnet_9blocks", "unet_64", "unet_128", "unet_256", "unet_512")
"""Names of the generators in use. Of a ResNet any number of blocks is taken, of a U-Net any power of two.

A U-Net halves its picture until one pixel is left of the size that it is named after.
"""
NORMS = ("instance", "none")
"""What follows a convolution: InstanceNorm without weights, or nothing, as where BatchNorm was folded into it."""
PADDINGS = ("reflect", "replicate", "replicate_blocks", "zero_blocks")
"""What a ResNet sees around its picture: mirrored or repeated edges; `_blocks` is within the residual blocks alone, and
mirrored edges around the picture."""
OUTPUTS = ("tanh", "sigmoid", "none")
"""What the last layer does: values from -1 to 1, from 0 to 1, or neither, cut at -1 and 1."""
SMALLEST_SIDE = 8
"""Least height and width of a picture: what a ResNet's blocks mirror and normalise must be two pixels a side."""


@dataclass(frozen=True)
class CycleGANConfig:
    """One CycleGAN model; what `config.json` of its run holds."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    picture_mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    """With the deviation: generators see, and make, pictures in [-1, 1]."""
    picture_std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)

    directions: tuple[str, ...]
    """What each generator does to a picture, such as `smiling` and `not_smiling`; an imported one does one thing."""
    generator: str = "resnet_6blocks"
    """One of `GENERATORS`."""
    filters: int = 64
    """Channels at the picture's own resolution, `ngf`."""
    picture_size: int = 64
    """Height and width in pixels that the generators were trained at; other multiples of the stride work too."""
    residual: bool = False
    """Whether generators make what is added to a picture, instead of a picture.

    Most of a picture stays as it is when an attribute changes: then there is less to learn. Published ones do not.
    """
    residual_scale: float = 2.0
    """What is added counts so many times: with 2, black can become white; DeblurGAN's `learn_residual` is 1."""
    norm: str = "instance"
    """One of `NORMS`."""
    padding: str = "reflect"
    """One of `PADDINGS`; of a ResNet."""
    output: str = "tanh"
    """One of `OUTPUTS`."""
    channels_in: int = 3
    """3, or 1: the generator sees grey pictures, as ITU-R BT.601 weighs colours."""
    channels_out: int = 3
    """3, or 1: it makes grey pictures."""
    method: Literal["cyclegan"] = "cyclegan"
    """What a run's `config.json` calls this kind of model."""

    def __post_init__(self) -> None:
        check_generator(self.generator)
        for option, allowed in (("norm", NORMS), ("padding", PADDINGS), ("output", OUTPUTS)):
            if getattr(self, option) not in allowed:
                raise ConfigError(f"{option} must be {' or '.join(allowed)}, not {str(getattr(self, option))[:80]!r}")
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
        """What a picture's height and width must be multiples of."""
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


def check_generator(name: str) -> None:
    """Check that there is a generator of that name.

    Raises:
        ConfigError: there is none.
    """
    kind, size = parse_generator(name)
    if kind == "resnet" and 1 <= size <= MAX_BLOCKS:
        return
    if kind == "unet" and 32 <= size <= 1024 and size & (size - 1) == 0:
        return
    raise ConfigError(f"generator must be {' or '.join(GENERATORS)}, not {name[:80]!r}")


def parse_generator(name: str) -> tuple[str, int]:
    """Return the kind of a generator, `resnet` or `unet`, and its blocks or the size that it is named after.

    Another name gives an empty kind.
    """
    if match := re.fullmatch(r"resnet_(\d{1,4})blocks|unet_(\d{1,4})", name):
        return ("resnet", int(match[1])) if match[1] else ("unet", int(match[2]))
    return "", 0
