"""What defines a model: its networks and its attribute groups.

A run's `config.json` holds these values fully resolved, so that a run folder alone rebuilds its networks.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from homomorph.errors import ConfigError

RESIDUAL = "residual"
"""Name of the branch that carries whatever no label names."""

MAX_GROUPS = 256
MAX_CHANNELS = 65_536
"""Of a layer."""
MAX_KERNEL = 31
MAX_SIDE = 8192
"""Of pictures, in pixels."""
MAX_BLOCKS = 64
"""Of a network, one after the other."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MAX_NAME = 100


@dataclass(frozen=True)
class NetworkConfig:
    """What the sizes of every family of networks have in common; `CompactConfig` and `PublishedConfig` are families."""

    family: ClassVar[str]
    """Name of the family in a run's `config.json`."""
    stride: ClassVar[int]
    """Pictures' height and width must be multiples of this; features are this much smaller."""

    feature_channels: int
    """Channels C of the features."""
    widths: tuple[int, ...]
    """Channels at the pictures' resolutions on the way to the features."""
    picture_mean: tuple[float, float, float]
    """Per-channel mean subtracted from pictures in [0, 1]."""
    picture_std: tuple[float, float, float]
    """Per-channel deviation that pictures are divided by."""

    def __post_init__(self) -> None:
        if not 1 <= self.feature_channels <= MAX_CHANNELS:
            raise ConfigError(f"network.feature_channels must be from 1 to {MAX_CHANNELS}, not {self.feature_channels}")
        for name in ("picture_mean", "picture_std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ConfigError(f"network.{name} must be three numbers, not {str(values)[:80]}")
        if min(self.picture_std) <= 0:
            raise ConfigError(f"network.picture_std must be positive, not {self.picture_std}")
        if not 1 <= min(self.widths) <= max(self.widths) <= MAX_CHANNELS:
            raise ConfigError(f"network.widths must be positive, at most {MAX_CHANNELS}, not {str(self.widths)[:80]}")


@dataclass(frozen=True)
class CompactConfig(NetworkConfig):
    """Sizes of our own networks: E and D residual, T_i linear, nothing normalised."""

    family: ClassVar[str] = "compact"
    stride: ClassVar[int] = 8

    feature_channels: int = 128
    """Channels C of the features [C, H/8, W/8]."""
    widths: tuple[int, int, int] = (48, 96, 160)
    """Channels at a half, a quarter and an eighth of the picture's resolution."""
    encoder_blocks: tuple[int, int, int] = (0, 1, 2)
    """Residual blocks of the encoder at those three resolutions."""
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    """The same of the decoder."""
    branch_width: int = 64
    """Hidden channels of each branch."""
    branch_kernel: int = 3
    """Side of the branches' convolutions, odd."""
    branch_context: bool = False
    """Whether the branches also see the means of the features over the whole picture."""
    picture_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    picture_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.branch_width <= MAX_CHANNELS:
            raise ConfigError(f"network.branch_width must be from 1 to {MAX_CHANNELS}, not {self.branch_width}")
        if self.branch_kernel % 2 == 0 or not 1 <= self.branch_kernel <= MAX_KERNEL:
            raise ConfigError(f"network.branch_kernel must be odd, from 1 to {MAX_KERNEL}, not {self.branch_kernel}")
        for name in ("encoder_blocks", "decoder_blocks"):
            if not 0 <= min(getattr(self, name)) <= max(getattr(self, name)) <= MAX_BLOCKS:
                raise ConfigError(
                    f"network.{name} must not be negative, at most {MAX_BLOCKS}, not {getattr(self, name)}"
                )


@dataclass(frozen=True)
class PublishedConfig(NetworkConfig):
    """Sizes of the networks published with HomoInterpGAN; the defaults are those of its checkpoints."""

    family: ClassVar[str] = "published"
    stride: ClassVar[int] = 16

    feature_channels: int = 512
    """Channels C of the features [C, H/16, W/16], and of each branch's hidden layers."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels at the picture's resolution, a half, a quarter and an eighth of it."""
    picture_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """ImageNet's."""
    picture_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """ImageNet's."""


Family = CompactConfig | PublishedConfig
"""The families of networks that a run can have."""
_FAMILIES: dict[str, type[CompactConfig] | type[PublishedConfig]] = {
    family.family: family for family in (CompactConfig, PublishedConfig)
}


@dataclass(frozen=True)
class ModelConfig:
    """One homomorph model: what it was made for and which sliders it has."""

    groups: dict[str, tuple[str, ...]]
    """Attributes of each group, in the order of the model's branches (the residual branch comes last)."""
    picture_size: int = 64
    """Height and width in pixels that the model was trained at; other multiples of the network's stride work too."""
    network: Family = dataclasses.field(default_factory=CompactConfig)

    def __post_init__(self) -> None:
        stride = self.network.stride
        if not stride <= self.picture_size <= MAX_SIDE or self.picture_size % stride:
            raise ConfigError(
                f"picture_size must be a positive multiple of {stride}, not {str(self.picture_size)[:40]}"
            )
        check_groups(self.groups)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches T_i in the order of the strengths' columns."""
        return (*self.groups, RESIDUAL)

    @property
    def attributes(self) -> tuple[str, ...]:
        """All labels, group by group."""
        return tuple(name for names in self.groups.values() for name in names)

    @property
    def feature_size(self) -> int:
        """Height and width of the features of pictures of `picture_size`."""
        return self.picture_size // self.network.stride

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back and JSON can hold."""
        values = dataclasses.asdict(self)
        return values | {"network": {"family": self.network.family, **values["network"]}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Rebuild a configuration.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        if (method := values.get("method", "homomorph")) != "homomorph":
            raise ConfigError(f"it is a model of the method {method}, not of homomorph")
        try:
            network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["network"].items()}
            # Runs from before there were families do not name theirs.
            family = network.pop("family", CompactConfig.family)
            if family not in _FAMILIES:
                raise ConfigError(f"network.family must be {' or '.join(_FAMILIES)}, not {family!r}")
            # Nor did E and D have different numbers of blocks then.
            if (blocks := network.pop("blocks", None)) is not None:
                network |= {"encoder_blocks": blocks, "decoder_blocks": blocks}
            groups = {group: tuple(names) for group, names in values["groups"].items() if not isinstance(names, str)}
            every = [name for names in groups.values() for name in names]
            if len(groups) < len(values["groups"]) or not all(isinstance(name, str) for name in every):
                raise ConfigError("groups must be lists of attributes")
            return cls(groups=groups, picture_size=values["picture_size"], network=_FAMILIES[family](**network))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a homomorph model configuration: {error}") from error


def served_name(name: str) -> str:
    """Return what an attribute is called in the names of directions and served models.

    Letters become small, whatever is neither letter nor digit becomes `_`, and a digit in front gets `a_` before it:
    `Smiling` is `smiling`, `5_o_Clock_Shadow` is `a_5_o_clock_shadow`.

    Raises:
        ConfigError: nothing is left of the name.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not plain:
        raise ConfigError(f"{name!r} has no letter from a to z and no digit: it cannot name a served model")
    return plain if plain[0].isalpha() else f"a_{plain}"


def check_name(kind: str, name: str) -> None:
    """Check that a group or a direction can name a served model.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise ConfigError(
            f"{kind} {name[:80]!r} must be lower-case letters, digits and underscores, at most {_MAX_NAME} (it names a "
            "model)"
        )


def check_groups(groups: dict[str, tuple[str, ...]]) -> None:
    """Check that groups can name branches, served models and strengths.

    Raises:
        ConfigError: no group, an empty group, a bad name, or an attribute in two groups.
    """
    if not groups:
        raise ConfigError("there must be at least one attribute group")
    if len(groups) > MAX_GROUPS:
        raise ConfigError(f"{len(groups)} groups are more than {MAX_GROUPS}")
    seen: dict[str, str] = {}
    for group, names in groups.items():
        check_name("group", group)
        if group == RESIDUAL:
            raise ConfigError(f"the group name {RESIDUAL!r} is reserved for what no label names")
        if not names:
            raise ConfigError(f"group {group!r} names no attribute")
        for name in names:
            if name in seen:
                raise ConfigError(f"attribute {name!r} stands in group {seen[name]!r} and again in {group!r}")
            seen[name] = group
