"""How a model is trained: the terms' weights, the schedule, and the presets that name a whole configuration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from homomorph.data.augmented import Jitter
from homomorph.errors import ConfigError
from homomorph.models.config import CompactConfig, Family, PublishedConfig


@dataclass(frozen=True)
class Recipe:
    """Weights of the training terms; `losses.py` gives the equations. A weight of 0 switches a term off."""

    warmup: float = 0.1
    """Share of the steps that train E, D and the decomposition of d alone, before anything is morphed."""
    critics: float = 0.4
    """Share of the steps before the critics and the attribute head join."""
    l_recon: float = 3.0
    """Reconstruction: Phi3 and pixels, for E and D."""
    l_pixel: float = 4.0
    """Pixels within the reconstruction."""
    l_kg: float = 0.05
    """Knowledge guidance |P(E(a)) - Phi5(a)|^2, for P and E."""
    l_gan: float = 0.001
    """-E[Dis(F)], for E and the T_i. Small: Dis has unit gradient over all features, other terms are means."""
    anchor: float = 1.0
    """Weight of E[Dis(F_a)] against it, which takes from E what it gains by shifting all features."""
    l_hom: float = 0.02
    """-z_v log A'(F), for the T_i."""
    l_total: float = 2.0
    """|F(v=1) - F_b|^2, for the T_i."""
    lambda_p: float = 10.0
    """Gradient penalty within the critic's loss."""
    critic_steps: int = 1
    """Updates of Dis and A' for one of E and the T_i."""
    l_projection: float = 1.0
    """What T_i carries, group i's labels explain; for E, the T_i and the prototypes."""
    l_residual: float = 3.0
    """Price on the residual branch, for E and the T_i."""
    l_scale: float = 0.1
    """Unit variance of the features, for E."""
    feature_noise: float = 0.05
    """Deviation of the noise that D's input carries during training: what hides in tiny features gets lost."""
    whole_strengths: float = 0.75
    """Share of the pairs whose strengths are 0 or 1 per branch, not from [0, 1]; all of them before the critics."""
    l_detail: float = 2.0
    """Reconstruction where labels show, for E and D."""
    l_counterfactual: float = 2.0
    """What labels say of a morph's pixels, for E, the T_i and D."""
    focus: float = 1.5
    """What the places count in it where a pair's labels show, beside all pixels."""
    l_part: float = 0.3
    """What T_i(F) tells of group i's labels, for E and the T_i."""
    l_rest: float = 1.0
    """What the rest of the features still tells of a group, for E and the T_i."""
    l_path: float = 1.5
    """Speed on the way from a to b, for E, the T_i and D."""
    l_pace: float = 0.2
    """Evenness of the way as Phi sees it, for E, the T_i and D."""
    l_agreement: float = 3.0
    """What a and b agree in stays on the way, for E, the T_i and D."""
    path_share: float = 0.25
    """Share of a batch's pairs whose ways are looked at, at least one pair."""
    path_steps: int = 3
    """Short steps of each way that are looked at."""
    l_picture: float = 0.25
    """The label-conditional critic on decoded morphs, for E, the T_i and D."""
    residual_ridge: float = 0.1
    """Ridge of the regression that completes T_residual at the end; 0 leaves it as it was trained."""
    beta1: float = 0.9
    """Adam's first beta for E and the T_i; 0.5 as published."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if not getattr(self, item.name) >= 0:
                raise ConfigError(f"recipe.{item.name} must not be negative, it is {getattr(self, item.name)}")
        for name, of in (("warmup", "steps"), ("critics", "steps"), ("path_share", "pairs")):
            if getattr(self, name) > 1:
                raise ConfigError(f"recipe.{name} is a share of the {of}, at most 1, not {getattr(self, name)}")
        for name in ("critic_steps", "path_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recipe.{name} must be at least 1, not {getattr(self, name)}")

    def path_pairs(self, pairs: int) -> int:
        """Return how many of so many pairs have their ways looked at."""
        return max(1, round(self.path_share * pairs))


PUBLISHED = Recipe(
    warmup=0.0,
    critics=0.0,
    l_recon=1.0,
    l_pixel=1.0,
    l_kg=1.0,
    l_gan=1.0,
    anchor=0.0,
    l_hom=1.0,
    l_total=1.0,
    lambda_p=100.0,
    critic_steps=5,
    l_projection=0.0,
    l_residual=0.0,
    l_scale=0.0,
    feature_noise=0.0,
    whole_strengths=0.0,
    l_detail=0.0,
    l_counterfactual=0.0,
    l_part=0.0,
    l_rest=0.0,
    l_path=0.0,
    l_pace=0.0,
    l_agreement=0.0,
    l_picture=0.0,
    residual_ridge=0.0,
    beta1=0.5,
)
"""The terms as published: everything from the first step, nothing beside them.

Networks stay the preset's; their start, and how pairs are drawn, stay ours, and errors are means, relative for Phi's
features.
"""

RECIPES = {"even": Recipe(), "published": PUBLISHED}


@dataclass(frozen=True)
class Preset:
    """A whole training configuration."""

    picture_size: int
    """Height and width in pixels."""
    network: Family
    """The family of E, T_i and D, and their sizes."""
    batch_size: int = 16
    """Pictures a step, even."""
    steps: int = 8000
    """Steps of training."""
    learning_rate: float = 1e-3
    """Adam's rate for E, T_i, D; it falls to a twentieth along a cosine."""
    critic_learning_rate: float = 2e-4
    """Adam's rate for the critics, attribute head and P."""
    ema: float = 0.998
    """Decay of the running mean of the weights that is saved as the model."""
    phi_steps: int = 400
    """Steps that train the small Phi."""
    prior_steps: int = 3000
    """Steps that train the label prior."""
    jitter: Jitter = field(default_factory=Jitter)
    """Positional augmentation."""


PRESETS = {
    "avatars64": Preset(
        picture_size=64,
        network=CompactConfig(
            feature_channels=128,
            widths=(32, 80, 128),
            encoder_blocks=(1, 2, 3),
            decoder_blocks=(2, 3, 3),
            branch_width=64,
            branch_kernel=3,
            branch_context=True,
        ),
    ),
    "avatars128": Preset(
        picture_size=128,
        network=CompactConfig(
            feature_channels=192,
            widths=(48, 112, 192),
            encoder_blocks=(1, 2, 2),
            decoder_blocks=(2, 3, 2),
            branch_width=96,
            branch_kernel=3,
            branch_context=True,
        ),
        batch_size=32,
        steps=20_000,
    ),
    "celeba128": Preset(
        picture_size=128,
        network=CompactConfig(
            feature_channels=256,
            widths=(64, 160, 256),
            encoder_blocks=(1, 2, 4),
            decoder_blocks=(2, 3, 4),
            branch_width=128,
            branch_kernel=3,
            branch_context=True,
        ),
        batch_size=32,
        steps=100_000,
        learning_rate=5e-4,
        ema=0.999,
        phi_steps=4000,
    ),
    "published": Preset(
        picture_size=128, network=PublishedConfig(), batch_size=8, steps=100_000, learning_rate=1e-4, ema=0.999
    ),
}
"""By the names that `homomorph train --preset` takes; `avatars64` trains on a CPU, the others want a GPU.

`celeba128` is for photographs of aligned faces: more of everything, T_i that see their surroundings, a Phi that has
seen each picture. `homomorph train --phi vgg19` suits it better where the weights can be downloaded.

`published` has the networks published with HomoInterpGAN. Theirs begin with an E that ImageNet has trained; ours begins
at random, as `published_networks.py` says, and guidance by `--phi vgg19` is what it learns of ImageNet. No model has
been trained to its end with it yet.
"""
