"""What defines a model: its networks and its attribute groups.

A run's `config.json` holds these values fully resolved, so that a run folder alone rebuilds its networks.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from homomorph.errors import ConfigError

RESIDUAL = "residual"
"""Name of the branch that carries whatever no label names."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the encoder E, the branches T_i and the decoder D."""

    feature_channels: int = 128
    """Channels C of the features [C, H/8, W/8]."""
    widths: tuple[int, int, int] = (48, 96, 160)
    """Channels at a half, a quarter and an eighth of the picture's resolution."""
    blocks: tuple[int, int, int] = (0, 1, 2)
    """Residual blocks at those three resolutions, in the encoder and in the decoder each."""
    branch_width: int = 64
    """Hidden channels of each branch."""
    branch_kernel: int = 3
    """Side of the branches' convolutions, odd."""
    picture_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Per-channel mean subtracted from pictures in [0, 1]."""
    picture_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Per-channel deviation that pictures are divided by."""

    def __post_init__(self) -> None:
        for name in ("feature_channels", "branch_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"network.{name} must be at least 1, not {getattr(self, name)}")
        if self.branch_kernel % 2 == 0:
            raise ConfigError(f"network.branch_kernel must be odd, not {self.branch_kernel}")
        if min(self.widths) < 1 or min(self.blocks) < 0:
            raise ConfigError("network.widths must be positive and network.blocks must not be negative")


STRIDE = 8
"""Pictures' height and width must be multiples of this; features are this much smaller."""


@dataclass(frozen=True)
class ModelConfig:
    """One homomorph model: what it was made for and which sliders it has."""

    groups: dict[str, tuple[str, ...]]
    """Attributes of each group, in the order of the model's branches (the residual branch comes last)."""
    picture_size: int = 64
    """Height and width in pixels that the model was trained at; other multiples of `STRIDE` work too."""
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        if self.picture_size < STRIDE or self.picture_size % STRIDE:
            raise ConfigError(f"picture_size must be a positive multiple of {STRIDE}, not {self.picture_size}")
        check_groups(self.groups)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches T_i in the order of the strengths' columns."""
        return (*self.groups, RESIDUAL)

    @property
    def attributes(self) -> tuple[str, ...]:
        """All labels, group by group."""
        return tuple(name for names in self.groups.values() for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back and JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Rebuild a configuration.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        try:
            network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["network"].items()}
            groups = {group: tuple(names) for group, names in values["groups"].items()}
            return cls(groups=groups, picture_size=values["picture_size"], network=NetworkConfig(**network))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a homomorph model configuration: {error}") from error


def check_groups(groups: dict[str, tuple[str, ...]]) -> None:
    """Check that groups can name branches, served models and strengths.

    Raises:
        ConfigError: no group, an empty group, a bad name, or an attribute in two groups.
    """
    if not groups:
        raise ConfigError("there must be at least one attribute group")
    seen: dict[str, str] = {}
    for group, names in groups.items():
        if not _NAME.fullmatch(group):
            raise ConfigError(f"group {group!r} must be lower-case letters, digits and underscores (it names a model)")
        if group == RESIDUAL:
            raise ConfigError(f"the group name {RESIDUAL!r} is reserved for what no label names")
        if not names:
            raise ConfigError(f"group {group!r} names no attribute")
        for name in names:
            if name in seen:
                raise ConfigError(f"attribute {name!r} stands in group {seen[name]!r} and again in {group!r}")
            seen[name] = group
