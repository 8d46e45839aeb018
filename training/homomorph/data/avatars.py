"""The built-in picture set: DiceBear's `avataaars` with exact labels.

The artwork ("Avataaars" by Pablo Stanley, free for personal and commercial use) comes with `dicebear-styles`,
`dicebear-core` turns options into SVG and `resvg` draws it. Every random option is a label, so the labels are exact and
say all of a picture.

No feature hides another one: no hat covers the hair, no dark lens covers the eyes, and every person has hair that
shows its colour.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import dicebear
import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

STYLE = "avataaars"

_VIEW_BOX = (40, 14, 200, 200)
"""x, y, width, height of the square around the head, in the artwork's 280 units."""


@dataclass(frozen=True)
class Feature:
    """One part of the drawing, its possible looks, and the label of each look."""

    group: str | None
    """Attribute group of the labels; None for a feature without labels."""
    option: str
    """DiceBear's option that selects the look."""
    looks: dict[str, str]
    """Label -> DiceBear's value. The label '' is the look without any label (its value '' draws nothing)."""


FEATURES = (
    Feature(
        "mouth",
        "mouthVariant",
        {"": "serious", "smiling": "smile", "sad": "sad", "mouth_open": "screamOpen"},
    ),
    Feature("eyes", "eyesVariant", {"": "default", "happy_eyes": "happy", "wide_eyes": "surprised"}),
    Feature(
        "hair_colour",
        "hairColor",
        {
            "black_hair": "2c1b18",
            "brown_hair": "724133",
            "blond_hair": "d6b370",
            "red_hair": "c93305",
            "pink_hair": "f59797",
            "grey_hair": "c8c8c8",
        },
    ),
    Feature(
        "hair_style",
        "topVariant",
        {
            "short_hair": "shortFlat",
            "curly_hair": "shortCurly",
            "bob": "bob",
            "bun": "bun",
            "long_hair": "straight01",
            "big_hair": "bigHair",
        },
    ),
    Feature(
        "facial_hair",
        "facialHairVariant",
        {"": "", "beard": "beardMedium", "long_beard": "beardMajestic", "moustache": "moustacheMagnum"},
    ),
    Feature(
        "glasses",
        "accessoriesVariant",
        {"": "", "round_glasses": "round", "square_glasses": "prescription02"},
    ),
    Feature(
        "skin",
        "skinColor",
        {"pale_skin": "ffdbb4", "tanned_skin": "d08b5b", "dark_skin": "614335", "yellow_skin": "f8d25c"},
    ),
    Feature(
        "clothes_colour",
        "clothesColor",
        {
            "black_clothes": "262e33",
            "blue_clothes": "5199e4",
            "white_clothes": "e6e6e6",
            "green_clothes": "a7ffc4",
            "red_clothes": "ff5c5c",
            "yellow_clothes": "ffffb1",
        },
    ),
    # These are the same in all pictures: glasses and fringes hide brows, and little of a neckline is visible.
    Feature(None, "eyebrowsVariant", {"": "default"}),
    Feature(None, "clothesVariant", {"": "shirtCrewNeck"}),
)


def groups(features: Sequence[Feature]) -> dict[str, tuple[str, ...]]:
    """Return the attributes of each group."""
    found: dict[str, tuple[str, ...]] = {}
    for feature in features:
        if feature.group is not None:
            found[feature.group] = (*found.get(feature.group, ()), *(label for label in feature.looks if label))
    return found


GROUPS = groups(FEATURES)

_OPTIONAL = {"facialHairVariant": "facialHairProbability", "accessoriesVariant": "accessoriesProbability"}
"""Option -> the option with its probability. It is set to 100, because DiceBear otherwise draws at random."""

Looks = tuple[str, ...]
"""One label per feature, in the order of `FEATURES`. They define a picture completely."""


def draw_looks(seed: int, index: int, features: Sequence[Feature] = FEATURES) -> Looks:
    """Draw picture `index` of the set `seed`; every feature is uniform and independent of the others."""
    generator = np.random.default_rng((seed, index))
    return tuple(str(generator.choice(list(feature.looks))) for feature in features)


def labels(looks: Looks, features: Sequence[Feature] = FEATURES) -> dict[str, int]:
    """Return the label columns of a picture: attribute -> 0 or 1, in the order of its groups."""
    worn = {label for feature, label in zip(features, looks, strict=True) if feature.group is not None}
    return {label: int(label in worn) for names in groups(features).values() for label in names}


def with_group(looks: Looks, other: Looks, group: str) -> Looks:
    """Return `looks` with everything of one group taken from `other`: the true counterfactual."""
    return tuple(
        theirs if feature.group == group else ours for feature, ours, theirs in zip(FEATURES, looks, other, strict=True)
    )


def draw_between(seed: int, index: int, looks: Looks) -> tuple[dict[str, str], set[str]]:
    """Draw colours for picture `index` of the set `seed` that lie between its own and those of another picture.

    Returns:
        Colours, DiceBear's option -> 'rrggbb', as `render` takes them; and the groups whose labels are unknown then.
    """
    generator = np.random.default_rng((seed, index, 1))
    # The hair's colour is always a mixture, so that every such picture differs from those in the palette's colours.
    other = tuple(
        str(generator.choice([look for look in feature.looks if look != ours or feature.group != "hair_colour"]))
        for feature, ours in zip(FEATURES, looks, strict=True)
    )
    unknown = {
        feature.group
        for feature, ours, theirs in zip(FEATURES, looks, other, strict=True)
        if _mixes(feature) and ours != theirs and feature.group is not None
    }
    return mixed_colours(looks, other, generator.uniform(0.1, 0.9)), unknown


def middle_colours(looks: Looks, other: Looks, group: str) -> dict[str, str]:
    """Return the colours half way between two pictures, DiceBear's option -> 'rrggbb'; none if `group` is no colour."""
    mixed = mixed_colours(looks, other, 0.5)
    return {feature.option: mixed[feature.option] for feature in FEATURES if feature.group == group and _mixes(feature)}


def on_the_way(looks: Looks, other: Looks, time: float, generator: np.random.Generator) -> tuple[Looks, dict[str, str]]:
    """Draw a picture between two others. Colours are mixed; a share `time` of the other features is from `other`.

    Args:
        looks: at time 0.
        other: at time 1.
        time: position between the two, in [0, 1].
        generator: draws which features have changed.

    Returns:
        Looks and colours, as `render` takes them.
    """
    whole = [index for index, feature in enumerate(FEATURES) if not _mixes(feature)]
    changed = set(generator.permutation(whole)[: round(time * len(whole))].tolist())
    between = tuple(other[index] if index in changed else ours for index, ours in enumerate(looks))
    return between, mixed_colours(looks, other, time)


def is_colour_group(group: str) -> bool:
    """Whether a group draws colours only. Two colours can be mixed; two shapes cannot."""
    return all(_mixes(feature) for feature in FEATURES if feature.group == group)


def mixed_colours(looks: Looks, other: Looks, time: float) -> dict[str, str]:
    """Mix every colour of two pictures.

    Args:
        looks: at time 0.
        other: at time 1.
        time: share of the other's colour, in [0, 1].

    Returns:
        DiceBear's option -> 'rrggbb', as `render` takes it.
    """
    colours: dict[str, str] = {}
    for feature, ours, theirs in zip(FEATURES, looks, other, strict=True):
        if _mixes(feature):
            first, second = (np.array(list(bytes.fromhex(feature.looks[label]))) for label in (ours, theirs))
            colours[feature.option] = bytes((first + time * (second - first)).round().astype(np.uint8)).hex()
    return colours


def _mixes(feature: Feature) -> bool:
    """Whether two looks of the feature can be mixed."""
    return feature.option.endswith("Color")


@functools.cache
def _style() -> dicebear.Style:
    definition = json.loads((resources.files("dicebear_styles") / f"{STYLE}.json").read_text(encoding="utf-8"))
    return dicebear.Style(definition)


def render_png(looks: Looks, size: int, colours: Mapping[str, str] | None = None) -> bytes:
    """Draw one picture of `size` x `size` pixels on pure white, as a PNG file's content.

    Args:
        looks: what to draw.
        size: height and width in pixels.
        colours: DiceBear's option -> 'rrggbb'; they replace the colours of `looks`.
    """
    options: dict[str, object] = {"seed": "", "accessoriesColor": ["262e33"]}
    for feature, label in zip(FEATURES, looks, strict=True):
        value = (colours or {}).get(feature.option, feature.looks[label])
        options[feature.option] = [value] if value else []
        if feature.option in _OPTIONAL:
            options[_OPTIONAL[feature.option]] = 100 if value else 0
        if feature.option == "hairColor":
            options["facialHairColor"] = [value]
    svg = str(dicebear.Avatar(_style(), options))
    # Drawing only the square around the head is sharper and faster than cropping a larger drawing.
    cropped = svg.replace('viewBox="0 0 280 280"', 'viewBox="{} {} {} {}"'.format(*_VIEW_BOX), 1)
    if cropped == svg:
        raise RuntimeError(f"the {STYLE} artwork no longer has the canvas that homomorph crops; pin dicebear-styles")
    return bytes(
        resvg_py.svg_to_bytes(svg_string=cropped, width=size, height=size, background="#ffffff", skip_system_fonts=True)
    )


def render(looks: Looks, size: int, colours: Mapping[str, str] | None = None) -> NDArray[np.uint8]:
    """Draw one picture as `render_png` does, as uint8 RGB [size, size, 3]."""
    return np.asarray(Image.open(io.BytesIO(render_png(looks, size, colours))).convert("RGB"))
