"""Configuration of a model: its networks and its attribute groups.

A run's `config.json` holds these values fully resolved, so that a run folder alone rebuilds its networks.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from homomorph.errors import ConfigError

RESIDUAL = "residual"
"""Name of the branch for all differences that no label describes."""

MAX_GROUPS = 256
MAX_CHANNELS = 65_536
"""Largest number of channels of a layer."""
MAX_KERNEL = 31
MAX_SIDE = 8192
"""Largest height and width of pictures, in pixels."""
MAX_BLOCKS = 64
"""Largest number of blocks in sequence."""
MAX_LAYERS = 16
"""Largest number of a decoder's candidate pictures."""

C = TypeVar("C")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MAX_NAME = 100


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes that all families of networks have. The families are `CompactConfig` and `PublishedConfig`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    stride: ClassVar[int]
    """Pictures' height and width must be multiples of it. Features are smaller by this factor."""

    feature_channels: int
    """Channels C of the features."""
    widths: tuple[int, ...]
    """Channels at each resolution from the picture to the features."""
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
    """Sizes of our own networks: residual E and D, linear T_i, no normalisation layers."""

    stride: ClassVar[int] = 8

    family: Literal["compact"] = "compact"
    feature_channels: int = 128
    """Channels C of the features [C, H/8, W/8]."""
    widths: tuple[int, int, int] = (48, 96, 160)
    """Channels at a half, a quarter and an eighth of the picture's resolution."""
    encoder_blocks: tuple[int, int, int] = (0, 1, 2)
    """Residual blocks of the encoder at those three resolutions."""
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    """Residual blocks of the decoder at those three resolutions."""
    decoder_layers: int = 1
    """Number of candidate pictures that D averages with weights per pixel. With 1, its last layer is the picture."""
    branch_width: int = 64
    """Hidden channels of each branch."""
    branch_kernel: int = 3
    """Kernel size of the branches' convolutions, odd."""
    branch_context: bool = False
    """Whether the branches also get the features' means over the whole picture."""
    picture_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    picture_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.branch_width <= MAX_CHANNELS:
            raise ConfigError(f"network.branch_width must be from 1 to {MAX_CHANNELS}, not {self.branch_width}")
        if self.branch_kernel % 2 == 0 or not 1 <= self.branch_kernel <= MAX_KERNEL:
            raise ConfigError(f"network.branch_kernel must be odd, from 1 to {MAX_KERNEL}, not {self.branch_kernel}")
        if not 1 <= self.decoder_layers <= MAX_LAYERS:
            raise ConfigError(f"network.decoder_layers must be from 1 to {MAX_LAYERS}, not {self.decoder_layers}")
        for name in ("encoder_blocks", "decoder_blocks"):
            if not 0 <= min(getattr(self, name)) <= max(getattr(self, name)) <= MAX_BLOCKS:
                raise ConfigError(
                    f"network.{name} must not be negative, at most {MAX_BLOCKS}, not {getattr(self, name)}"
                )


@dataclass(frozen=True)
class PublishedConfig(NetworkConfig):
    """Sizes of the networks published with HomoInterpGAN. The defaults are those of its checkpoints."""

    stride: ClassVar[int] = 16

    family: Literal["published"] = "published"
    feature_channels: int = 512
    """Channels C of the features [C, H/16, W/16], and of each branch's hidden layers."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels at the picture's resolution, a half, a quarter and an eighth of it."""
    picture_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """ImageNet's."""
    picture_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """ImageNet's."""


Family = Annotated[CompactConfig | PublishedConfig, Field(discriminator="family")]
"""All families of networks."""


@dataclass(frozen=True)
class ModelConfig:
    """One homomorph model: its networks, its groups and its picture size."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

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
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Rebuild a configuration.

        Raises:
            ConfigError: a key is missing or unknown, or a value is of the wrong type or out of range.
        """
        if isinstance(values, dict) and (method := values.get("method", "homomorph")) != "homomorph":
            raise ConfigError(f"it is a model of the method {method}, not of homomorph")
        return checked(cls, values)


def checked(kind: type[C], values: object, *, strict: bool = True) -> C:
    """Make a configuration of plain values, as JSON and YAML have them.

    Args:
        kind: the configuration's dataclass.
        values: a file's content.
        strict: whether to accept only numbers as numbers; otherwise also text such as `"2e-4"`, as YAML reads it.

    Raises:
        ConfigError: a key is missing or unknown, or a value is of the wrong type or out of range.
    """
    try:
        # Validates as JSON, so that lists are accepted as tuples.
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=strict)
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"it holds what JSON cannot: {error}") from error
        first = error.errors()[0]
        raise ConfigError(f"{_place(first['loc'], values)}: {first['msg']}") from error


def _place(location: tuple[int | str, ...], values: object) -> str:
    """Return the place of an error in `values`, without pydantic's own tags."""
    names: list[str] = []
    for key in location:
        if isinstance(values, dict) and key in values:
            names, values = [*names, str(key)], values[key]
        elif isinstance(values, list | tuple) and isinstance(key, int):
            names, values = [*names, str(key)], None
    if location and (not names or names[-1] != str(location[-1])) and isinstance(values, dict):
        names.append(str(location[-1]))  # a missing key
    return ".".join(names) or "it"


def served_name(name: str) -> str:
    """Return an attribute's name for use in the names of directions and served models.

    Letters become small, other characters except digits become `_`, and `a_` precedes a leading digit:
    `Smiling` is `smiling`, `5_o_Clock_Shadow` is `a_5_o_clock_shadow`.

    Raises:
        ConfigError: the result is empty.
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
