"""A whole training configuration, as one YAML file holds it: `presets/NAME.yaml`, or a file of your own.

homomorph train data/avatars --out runs/avatars64 --preset avatars64 --set recipe.front=0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from homomorph.data.augmented import Jitter
from homomorph.errors import ConfigError
from homomorph.models.config import Family, checked
from homomorph.text_files import parse_yaml, read_yaml
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.published.recipe import PublishedRecipe

_LEARNING_RATES = {"default": 1e-2, "published": 6e-4}
"""Learning rate of a preset that gives none: Muon's in the default recipe, Adam's in the other."""

Recipe = Annotated[DefaultRecipe | PublishedRecipe, Field(discriminator="name")]
"""The losses' weights, by the recipe's name."""


@dataclass(frozen=True)
class MorphPreset:
    """A training of E, T_i and D."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    picture_size: int
    """Height and width in pixels."""
    network: Family
    """The family of E, T_i and D, and their sizes."""
    method: Literal["homomorph"] = "homomorph"
    recipe: Recipe = field(default_factory=DefaultRecipe)
    """The losses and their weights."""
    batch_size: int = 16
    """Pictures a step, even."""
    steps: int = 8000
    """Steps of training."""
    learning_rate: float = 1e-2
    """Largest learning rate: Muon's for E and D in the default recipe, Adam's in the published one."""
    critic_learning_rate: float = 2e-4
    """Adam's rate for the critics."""
    ema: float = 0.998
    """Decay of the running mean of the weights that is saved as the model."""
    jitter: Jitter = field(default_factory=Jitter)
    """Positional augmentation."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "critic_learning_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be from 0 to below 1, not {self.ema}")


Preset = Annotated[MorphPreset | CycleGANPreset, Field(discriminator="method")]


def preset_names() -> list[str]:
    """Return the names of the presets that come with homomorph."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def read_preset(name: str, changes: Sequence[str] = (), *, recipe: str | None = None) -> MorphPreset | CycleGANPreset:
    """Read a preset, and change some of its values.

    Args:
        name: one of `preset_names`, or the path of a YAML file.
        changes: such as `recipe.front=0` or `steps=4000`; values are YAML.
        recipe: name of another recipe, with its default weights and learning rate, in place of the preset's.

    Raises:
        ConfigError: there is no such preset, or a value is unknown, of the wrong type or out of range.
    """
    values = _read(name)
    if recipe is not None and values.get("method", "homomorph") != "homomorph":
        raise ConfigError(f"--recipe is for --method homomorph, and the preset {name} is for {values['method']}")
    if recipe is not None and recipe != _recipe_of(values):
        values["recipe"] = {"name": recipe}
        values.pop("learning_rate", None)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: expected NAME=VALUE, such as recipe.front=0")
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {change}: {parent} is a value, and has none of its own")
        place[last] = parse_yaml(text, f"--set {change}", ConfigError)
    if (rate := _LEARNING_RATES.get(_recipe_of(values))) and values.get("method") == "homomorph":
        values.setdefault("learning_rate", rate)
    try:
        return checked(Preset, values, strict=False)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"preset {name}: {error}") from error


def _recipe_of(values: dict[str, Any]) -> str:
    """Return the name of the recipe in a preset's values; the default one where they have none."""
    recipe = values.get("recipe")
    return str(recipe.get("name", "default")) if isinstance(recipe, dict) else "default"


def _read(name: str) -> dict[str, Any]:
    if name in preset_names():
        values = parse_yaml((_folder() / f"{name}.yaml").read_text(encoding="utf-8"), name, ConfigError)
    elif name.endswith((".yaml", ".yml")):
        try:
            values = read_yaml(Path(name), ConfigError)
        except FileNotFoundError as error:
            raise ConfigError(f"preset {name} cannot be read: there is no such file") from error
        except ValueError as error:  # a path with a zero byte
            raise ConfigError(f"preset {name!r} cannot be read: {error}") from error
    else:
        raise ConfigError(f"there is no preset {name!r}: give one of {', '.join(preset_names())}, or a YAML file")
    if not isinstance(values, dict):
        raise ConfigError(f"preset {name} must map names to values, as presets/avatars64.yaml does")
    return values


def _folder() -> Any:
    return resources.files("homomorph") / "presets"
