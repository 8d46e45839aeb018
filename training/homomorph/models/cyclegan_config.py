"""What defines a CycleGAN run: its generator and the directions that it can change a picture in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from homomorph.errors import ConfigError
from homomorph.models.config import check_name

GENERATORS = {
    "resnet_6blocks": 4,
    "resnet_9blocks": 4,
    "unet_64": 64,
    "unet_128": 128,
    "unet_256": 256,
}
"""Names of the generators, and what a picture's height and width must be multiples of.

A U-Net halves its picture until one pixel is left of the size that it is named after.
"""
SMALLEST_SIDE = 8
"""Least height and width of a picture: what a ResNet's blocks mirror and normalise must be two pixels a side."""


@dataclass(frozen=True)
class CycleGANConfig:
    """One CycleGAN model; what `config.json` of its run holds."""

    method: ClassVar[str] = "cyclegan"
    """What a run's `config.json` calls this kind of model."""

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

    def __post_init__(self) -> None:
        if self.generator not in GENERATORS:
            raise ConfigError(f"generator must be {' or '.join(GENERATORS)}, not {self.generator!r}")
        if self.filters < 1:
            raise ConfigError(f"filters must be at least 1, not {self.filters}")
        if self.picture_size < self.stride or self.picture_size % self.stride:
            raise ConfigError(
                f"picture_size must be a positive multiple of {self.stride} for {self.generator}, "
                f"not {self.picture_size}"
            )
        if self.picture_size < SMALLEST_SIDE:
            raise ConfigError(f"picture_size must be at least {SMALLEST_SIDE}, not {self.picture_size}")
        if not self.directions or len(set(self.directions)) < len(self.directions):
            raise ConfigError(f"directions must be different names, not {', '.join(self.directions) or 'none'}")
        for name in self.directions:
            check_name("direction", name)

    @property
    def stride(self) -> int:
        """What a picture's height and width must be multiples of."""
        return GENERATORS[self.generator]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back and JSON can hold."""
        return {"method": self.method, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CycleGANConfig:
        """Rebuild a configuration.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        try:
            given = {key: value for key, value in values.items() if key != "method"}
            return cls(**given | {"directions": tuple(given["directions"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a CycleGAN configuration: {error}") from error
