"""Weights and phases of the default recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from homomorph.errors import ConfigError

RECONSTRUCTION, MORPHS, FRONTS = "reconstruction", "morphs", "fronts"
"""Phases: E and D learn to draw pictures; then whole morphs join; then frames on the way join."""

TERMS = (
    "reconstruction",
    "arrive",
    "real",
    "labels",
    "keep",
    "total",
    "idle",
    "front",
    "share",
    "symmetry",
)
"""Names of the terms."""


@dataclass(frozen=True)
class DefaultRecipe:
    """Ten weights, one a term (`losses.py` has the equations). A term of weight 0 is not computed."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["default"] = "default"
    reconstruction: float = 4.0
    """D(E(a)) is a."""
    arrive: float = 0.0
    """A morph of all labels in which a and b differ is b; where labels say nearly all of a picture, as of drawings."""
    real: float = 0.0
    """The critic takes frames for real pictures."""
    labels: float = 0.0
    """The critic finds in whole frames the labels that they should show."""
    keep: float = 0.0
    """A morph of one group stays near a."""
    total: float = 1.0
    """All T_i together reach b."""
    idle: float = 1.0
    """T_i is 0 for pictures that agree in group i, beside what it is for others; and T_residual small."""
    front: float = 4.0
    """Each place of a frame on the way shows what it showed before a change or what it shows after it; for D alone."""
    share: float = 1.0
    """The share of the places that show it after the change is v; for D alone."""
    symmetry: float = 0.5
    """A place and its mirror image change together; for D alone, and for faces that look straight ahead."""
    blended: tuple[str, ...] = ()
    """Groups between whose looks there is a continuum, such as colours. They mix on the way; the others make fronts."""
    twins: float = 1.0
    """Share of the pairs of one group that agree in all other labels, as far as the data has such pairs."""
    focus: float = 0.5
    """What the places where a and b differ count in `arrive`, beside all places."""
    residual: float = 0.2
    """What T_residual's share of the difference counts in `idle`."""
    penalty: float = 0.04
    """R1, the critic's squared gradient on real pictures."""
    penalty_every: int = 16
    """Steps between two penalties, each of which counts as many times."""
    branch_rate: float = 0.1
    """Learning rate of the T_i, as a share of E's and D's: E sorts itself into the channels that the T_i start with."""
    morphs_from: float = 0.1
    """Share of the steps that are done when whole morphs join."""
    fronts_from: float = 0.4
    """Share of the steps that are done when frames on the way join."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float | int) and not value >= 0:
                raise ConfigError(f"recipe.{item.name} must not be negative, it is {value}")
        if not self.morphs_from <= self.fronts_from <= 1:
            raise ConfigError(
                f"recipe.morphs_from must be at most fronts_from, and that at most 1: they are {self.morphs_from} and "
                f"{self.fronts_from}"
            )
        if self.twins > 1:
            raise ConfigError(f"recipe.twins is a share of the pairs, at most 1, not {self.twins}")
        if self.penalty_every < 1:
            raise ConfigError(f"recipe.penalty_every must be at least 1, not {self.penalty_every}")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term."""
        return {name: getattr(self, name) for name in TERMS}

    @property
    def has_critic(self) -> bool:
        """Whether a term needs the critic."""
        return self.real > 0 or self.labels > 0

    @property
    def has_fronts(self) -> bool:
        """Whether a term needs frames on the way."""
        return self.front > 0 or self.share > 0 or self.symmetry > 0

    def phase(self, done: float) -> str:
        """Name the phase when this share of the steps is done."""
        return RECONSTRUCTION if done < self.morphs_from else MORPHS if done < self.fronts_from else FRONTS
