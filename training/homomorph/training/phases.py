"""The phases of a training, which begin one after the other and end together."""

from __future__ import annotations

from homomorph.training.recipe import Recipe

WARM_UP, MORPHS, CRITICS = "warm-up", "morphs", "critics"
"""Phases of a training: E, D and the decomposition of d; then morphs; then the critics too."""


def phase_of(done: float, recipe: Recipe) -> str:
    """Name the phase at this share of the steps: `warm-up`, `morphs` or `critics`."""
    return WARM_UP if done < recipe.warmup else MORPHS if done < recipe.critics else CRITICS
