"""Names that client and server share. They stand here and nowhere else: training and export import them from here."""

from __future__ import annotations

from typing import Literal, get_args

MORPH = "morph"
"""The served model that morphs one picture into another."""
MORPH_STREAM = "morph_stream"
"""The served model that does so too, and whose frames leave as they are decoded."""
EDIT = "edit"
"""The served model that changes a picture towards labels."""
TRANSLATE = "translate"
"""The served model that changes a picture in directions of CycleGANs, one after the other."""

Blend = Literal["pixel", "latent", "slerp"]
"""A method with one slider for everything: linear in pixels, linear or spherical in features. A served model each."""
BLENDS: tuple[Blend, ...] = get_args(Blend)
PIXEL, LATENT, SLERP = BLENDS
Method = Literal["homomorph", Blend]
"""A way of getting from one picture to another."""
METHODS: tuple[Method, ...] = get_args(Method)
HOMOMORPH = METHODS[0]
"""The method with one slider for each group."""
