"""Pictures of the built-in set drawn again with something changed: the truths that figures compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from homomorph.data import avatars
from homomorph.evaluation.figures import Pictures

GHOST_STRENGTHS = (0.25, 0.5, 0.75)
"""Strengths at which frames are compared with both ends drawn in the colours between."""


@dataclass
class Redrawn:
    """N pairs a, b drawn again. No training sees such pictures."""

    mixed_a: Pictures
    """a with every colour mixed at each of `GHOST_STRENGTHS`, uint8 [N, V, 3, H, W]."""
    mixed_b: Pictures
    """b with the same colours, the same shape."""
    between: Pictures
    """Two drawn pictures for each pair, as they could be on the way from a to b, uint8 [2 N, 3, H, W]."""
    counterfactuals: dict[str, Pictures] = field(default_factory=dict)
    """Per group: a with b's options of that group, uint8 [N, 3, H, W]."""
    counterfactuals_of_b: dict[str, Pictures] = field(default_factory=dict)
    """Per group that is no colour: b with a's options of that group, uint8 [N, 3, H, W]."""
    half_colours: dict[str, Pictures] = field(default_factory=dict)
    """Per colour group: a in the colour half way, uint8 [N, 3, H, W]."""


def drawings_per_pair(groups: Sequence[str]) -> int:
    """Number of pictures that `redraw` draws of each pair."""
    return sum(1 if avatars.is_colour_group(group) else 2 for group in groups) + 2 * len(GHOST_STRENGTHS) + 2


def redraw(
    looks_a: Sequence[avatars.Looks],
    looks_b: Sequence[avatars.Looks],
    groups: Sequence[str],
    size: int,
    drawn: Callable[[int], None],
) -> Redrawn:
    """Draw pairs again.

    Args:
        looks_a: N looks.
        looks_b: N looks.
        groups: those whose counterfactuals are wanted.
        size: height and width in pixels.
        drawn: called with the number of pictures drawn since the last call.
    """
    looks = list(zip(looks_a, looks_b, strict=True))
    mixed_a = np.empty((len(looks), len(GHOST_STRENGTHS), 3, size, size), dtype=np.uint8)
    mixed_b = np.empty_like(mixed_a)
    for pair, (ours, theirs) in enumerate(looks):
        for column, strength in enumerate(GHOST_STRENGTHS):
            colours = avatars.mixed_colours(ours, theirs, strength)
            mixed_a[pair, column] = _render(ours, size, colours)
            mixed_b[pair, column] = _render(theirs, size, colours)
        drawn(2 * len(GHOST_STRENGTHS))

    generator = np.random.default_rng(0)
    between = np.empty((2 * len(looks), 3, size, size), dtype=np.uint8)
    for row in range(2 * len(looks)):
        looks_between, colours = avatars.on_the_way(*looks[row % len(looks)], generator.random(), generator)
        between[row] = _render(looks_between, size, colours)
        drawn(1)

    redrawn = Redrawn(mixed_a, mixed_b, between)
    for group in groups:
        redrawn.counterfactuals[group] = _render_all(
            [(avatars.with_group(ours, theirs, group), None) for ours, theirs in looks], size, drawn
        )
        if avatars.is_colour_group(group):
            colours_half_way = [(ours, avatars.middle_colours(ours, theirs, group)) for ours, theirs in looks]
            redrawn.half_colours[group] = _render_all(colours_half_way, size, lambda count: None)
        else:
            redrawn.counterfactuals_of_b[group] = _render_all(
                [(avatars.with_group(theirs, ours, group), None) for ours, theirs in looks], size, drawn
            )
    return redrawn


def _render_all(
    drawings: Sequence[tuple[avatars.Looks, dict[str, str] | None]], size: int, drawn: Callable[[int], None]
) -> Pictures:
    pictures = np.empty((len(drawings), 3, size, size), dtype=np.uint8)
    for row, (looks, colours) in enumerate(drawings):
        pictures[row] = _render(looks, size, colours)
        drawn(1)
    return pictures


def _render(looks: avatars.Looks, size: int, colours: dict[str, str] | None) -> Pictures:
    return avatars.render(looks, size, colours).transpose(2, 0, 1)
