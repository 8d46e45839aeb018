"""Names that client and server share. Training and export import them from here."""

from __future__ import annotations

from typing import Literal, get_args

MORPH = "morph"
"""The served model that morphs one picture into another."""
MORPH_STREAM = "morph_stream"
"""The served model that also morphs, but sends each frame as soon as it is decoded."""
EDIT = "edit"
"""The served model that changes a picture towards labels."""
TRANSLATE = "translate"
"""The served model that changes a picture in directions of CycleGANs, one after the other."""

Blend = Literal["pixel", "latent", "slerp"]
"""A method with a single slider: linear in pixels, linear or spherical in features. Each has its own served model."""
BLENDS: tuple[Blend, ...] = get_args(Blend)
PIXEL, LATENT, SLERP = BLENDS
Method = Literal["homomorph", Blend]
"""A method of morphing."""
METHODS: tuple[Method, ...] = get_args(Method)
HOMOMORPH = METHODS[0]
"""The method with one slider for each group."""
