"""Weights of the published recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from homomorph.errors import ConfigError


@dataclass(frozen=True)
class PublishedRecipe:
    """The terms of HomoInterpGAN, everything from the first step on; `losses.py` has the equations.

    Networks, their start and how pairs are drawn are the preset's and ours. Errors are means, relative ones for Phi's
    features, so weights are not the paper's numbers.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["published"] = "published"
    l_recon: float = 1.0
    """Phi3 of D(F_a) against Phi3 of a, for E and D."""
    l_pixel: float = 1.0
    """Pixels of D(F_a) against a, for E and D."""
    l_kg: float = 1.0
    """Knowledge guidance |P(E(a)) - Phi5(a)|^2, for P and E."""
    l_gan: float = 1.0
    """-E[Dis(F)], for E and the T_i."""
    l_hom: float = 1.0
    """-z_v log A'(F), for the T_i."""
    l_total: float = 1.0
    """|F(v=1) - F_b|^2, for the T_i."""
    lambda_p: float = 100.0
    """Gradient penalty within the critic's loss."""
    critic_updates: int = 5
    """Updates of Dis and A' in one step of E and the T_i."""
    phi: Literal["small", "vgg19"] = "small"
    """The perceptual network: trained first on the labels, or torchvision's, which is downloaded."""
    phi_steps: int = 400
    """First steps of the training, which train the small Phi."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str) and not value >= 0:
                raise ConfigError(f"recipe.{item.name} must not be negative, it is {value}")
        if self.critic_updates < 1:
            raise ConfigError(f"recipe.critic_updates must be at least 1, not {self.critic_updates}")
