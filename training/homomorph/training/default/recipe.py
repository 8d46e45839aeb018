"""Weights and phases of the default recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from homomorph.errors import ConfigError

MORPHS, DECODER = "morphs", "decoder"
"""Phases: E, the T_i and D learn whole morphs; then D learns alone, frames on the way too."""

TERMS = (
    "reconstruction",
    "arrive",
    "real",
    "labels",
    "keep",
    "total",
    "read",
    "front",
    "sweep",
)
"""Names of the terms."""


@dataclass(frozen=True)
class DefaultRecipe:
    """Nine weights, one a term (`losses.py` has the equations). A term of weight 0 is not computed."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["default"] = "default"
    reconstruction: float = 1.0
    """A picture stays as it is where groups are taken from pictures that agree with it in them."""
    arrive: float = 0.0
    """A morph with all labels of b is b; for pictures of which labels say nearly all, as drawings."""
    real: float = 0.0
    """The critic takes whole frames, at any strength, for real pictures."""
    labels: float = 0.0
    """The critic finds in whole frames the labels that they should show."""
    keep: float = 0.0
    """A morph of one group stays near a."""
    total: float = 0.3
    """All T_i together reach b."""
    read: float = 0.0
    """Linear readers find each group's labels in its T_i's part of a picture's features."""
    front: float = 10.0
    """Each place of a frame on the way shows what it showed before a change or what it shows after it; for D alone."""
    sweep: float = 5.0
    """Groups change one after the other, and so do the places of a group; for D alone."""
    blended: tuple[str, ...] = ()
    """Groups between whose looks there is a continuum, such as colours. They mix on the way; the others make fronts."""
    places: float = 2.0
    """What the places where labels show count in `reconstruction` and `arrive`, beside all places. Each group counts
    alike, a mouth as much as hair."""
    focus: float = 0.5
    """What the places where a and b differ count in `arrive`, beside all places."""
    swap: float = 1.0
    """Largest share of a kept frame's groups that come from other pictures. Each frame draws its own share below it."""
    penalty: float = 0.04
    """R1, the critic's squared gradient on real pictures."""
    penalty_every: int = 16
    """Steps between two penalties, each of which counts as many times."""
    branch_rate: float = 0.01
    """Adam's learning rate for the T_i, as a share of Muon's for E and D: E sorts itself into the channels that the T_i
    start with."""
    critic_from: float = 0.1
    """Share of the steps that are done when the critic joins: it would tell first, blurred pictures by their blur."""
    judged_rate: float = 2e-4
    """Learning rate of E, the T_i and D once the critic has joined. From then on Adam updates them all."""
    decoder_from: float = 0.5
    """Share of the steps that are done when E and the T_i are finished, and D begins to learn alone; 1: never."""
    decoder_rate: float = 3e-3
    """Muon's largest learning rate for D while it learns alone."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float | int) and not value >= 0:
                raise ConfigError(f"recipe.{item.name} must not be negative, it is {value}")
        for name in ("critic_from", "decoder_from", "swap"):
            if getattr(self, name) > 1:
                raise ConfigError(f"recipe.{name} is a share, at most 1, not {getattr(self, name)}")
        if self.has_critic and self.decoder_from < 1:
            raise ConfigError("recipe.decoder_from must be 1 where recipe.real or recipe.labels is not 0")
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
        return self.front > 0 or self.sweep > 0

    def phase(self, done: float) -> str:
        """Name the phase when this share of the steps is done."""
        return DECODER if done >= self.decoder_from else MORPHS
