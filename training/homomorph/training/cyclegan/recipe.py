"""How a CycleGAN is trained: sizes, weights and schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from homomorph.data.augmented import Jitter
from homomorph.errors import ConfigError
from homomorph.models.cyclegan_config import parse_generator


@dataclass(frozen=True)
class CycleGANPreset:
    """A whole training configuration; the defaults are the paper's where it names them."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    attribute: str | None = None
    """The label that divides the pictures into two domains; `homomorph train --attribute` names it."""
    method: Literal["cyclegan"] = "cyclegan"
    generator: str = "resnet_9blocks"
    """One of `GENERATORS`."""
    filters: int = 64
    """The generators' channels at the picture's own resolution."""
    residual: bool = False
    """Whether generators make a difference that is added to the picture; the paper's make the picture itself."""
    discriminator_filters: int = 64
    """The discriminators' channels after their first convolution."""
    picture_size: int = 256
    """Height and width in pixels."""
    batch_size: int = 1
    """Pictures of each domain in a step."""
    steps: int = 200_000
    """Steps of training; the rate stays for the first half and falls to 0 in the second."""
    learning_rate: float = 2e-4
    """Adam's rate; its betas are 0.5 and 0.999."""
    l_cycle: float = 10.0
    """|F(G(x)) - x|_1."""
    l_identity: float = 5.0
    """|G(y) - y|_1."""
    pool: int = 50
    """Generated pictures that each discriminator's pool keeps."""
    ema: float = 0.999
    """Decay of the running mean of the weights that is saved as the model; the paper saves the last weights."""
    jitter: Jitter = field(default_factory=Jitter)
    """Positional augmentation."""

    def __post_init__(self) -> None:
        parse_generator(self.generator)
        for name in ("discriminator_filters", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "l_cycle", "l_identity", "pool"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, it is {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be from 0 to below 1, not {self.ema}")
