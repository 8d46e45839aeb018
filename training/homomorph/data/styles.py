"""Picture sets in any of DiceBear's styles: their drawings and their labels.

`avataaars` is defined by hand (`avatars.py`). For every other style, each component with several variants and each
colour with several values in the style's definition becomes a group of attributes. A label may hide another one, as a
hat hides hair: that is not checked. Only looks that never show are left out.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

import dicebear
import resvg_py

from homomorph.data import avatars
from homomorph.data.avatars import Feature, Looks
from homomorph.errors import DataError

_MAX_VARIANTS = 6
"""Variants of a component, and values of a colour, that are drawn at most: a label needs enough pictures."""
_BASES = 3
"""Pictures in which a look is tried: it has to show in one of them."""


@dataclass(frozen=True)
class Style:
    """A style and everything in it that is drawn at random."""

    name: str
    """DiceBear's name of the style."""
    features: tuple[Feature, ...]
    """The features that are drawn at random, independently of each other."""

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Attributes of each group."""
        return avatars.groups(self.features)

    def draw_looks(self, seed: int, index: int) -> Looks:
        """Draw picture `index` of the set `seed`."""
        return avatars.draw_looks(seed, index, self.features)

    def labels(self, looks: Looks) -> dict[str, int]:
        """Return the label columns of a picture: attribute -> 0 or 1, in the order of `groups`."""
        return avatars.labels(looks, self.features)

    def render_png(self, looks: Looks, size: int, colours: Mapping[str, str] | None = None) -> bytes:
        """Draw one picture of `size` x `size` pixels on white, as a PNG file's content.

        `colours` are drawn instead of what `looks` says, DiceBear's option -> 'rrggbb'; `avataaars` alone takes them.
        """
        if self.name == avatars.STYLE:
            return avatars.render_png(looks, size, colours)
        options: dict[str, object] = {"seed": ""}
        for feature, label in zip(self.features, looks, strict=True):
            value = feature.looks[label]
            options[feature.option] = [value] if value else []
            if "" in feature.looks:
                options[feature.option.removesuffix("Variant") + "Probability"] = 100 if value else 0
        svg = str(dicebear.Avatar(_artwork(self.name), options))
        return bytes(
            resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True)
        )


def style_names() -> list[str]:
    """Return the names of all styles."""
    files = resources.files("dicebear_styles").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def find_style(name: str) -> Style:
    """Find a style by its name.

    Raises:
        DataError: there is none of that name, or nothing in it varies.
    """
    if name == avatars.STYLE:
        return Style(name, avatars.FEATURES)
    if name not in style_names():
        raise DataError(f"there is no style {name!r}; the styles are {', '.join(style_names())}")
    everything = Style(name, tuple(_features(_definition(name))))
    visible = tuple(feature for index in range(len(everything.features)) if (feature := _visible(everything, index)))
    if not visible:
        raise DataError(f"nothing that can be labelled varies in the style {name}; take another --style")
    return Style(name, visible)


def _features(definition: dict[str, dict[str, dict[str, object]]]) -> Iterator[Feature]:
    """Yield a feature for each component in several variants and each colour of several values."""
    for component, content in definition["components"].items():
        variants = list(content.get("variants", ()))[:_MAX_VARIANTS]  # type: ignore[call-overload]
        group = _snake(component)
        looks = {f"{group}_{_snake(variant)}": variant for variant in variants}
        if int(content.get("probability", 100)) < 100:  # type: ignore[call-overload]
            looks = {"": ""} | looks
        if len(looks) > 1:
            yield Feature(group, f"{component}Variant", looks)
    for colour, content in definition["colors"].items():
        values = [value.lstrip("#") for value in content["values"]][:_MAX_VARIANTS]  # type: ignore[attr-defined]
        group = f"{_snake(colour)}_colour"
        if len(values) > 1:
            yield Feature(group, f"{colour}Color", {f"{group}_{value}": value for value in values})


def _visible(style: Style, index: int) -> Feature | None:
    """Return a feature with only those looks that differ visibly; None if fewer than two are left."""
    feature = style.features[index]
    seen: dict[tuple[bytes, ...], str] = {}
    bases = [style.draw_looks(0, number) for number in range(_BASES)]
    for label in feature.looks:
        pictures = tuple(style.render_png((*base[:index], label, *base[index + 1 :]), 64) for base in bases)
        seen.setdefault(pictures, label)
    kept = {label: feature.looks[label] for label in seen.values()}
    return Feature(feature.group, feature.option, kept) if len(kept) > 1 else None


def _snake(name: str) -> str:
    """'facialHair' -> 'facial_hair'."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def _definition(name: str) -> dict[str, dict[str, dict[str, object]]]:
    definition: dict[str, dict[str, dict[str, object]]] = json.loads(
        (resources.files("dicebear_styles") / f"{name}.json").read_text(encoding="utf-8")
    )
    return definition


@functools.cache
def _artwork(name: str) -> dicebear.Style:
    return dicebear.Style(_definition(name))
