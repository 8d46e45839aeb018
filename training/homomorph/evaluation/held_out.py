"""The pairs that figures are taken on, and on the built-in set the truth about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homomorph.data import avatars
from homomorph.data.labels import LabelledPictures
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent
from homomorph_client.pictures import fit_picture

Pictures = NDArray[np.uint8]

GHOST_STRENGTHS = (0.25, 0.5, 0.75)
"""Strengths at which frames are compared with both ends drawn in the colours between."""
MAX_TRAINING = 8000
"""Pictures that the evaluator is trained on, at most."""


@dataclass
class HeldOut:
    """N pairs of pictures that no model has seen, and further pictures that train the evaluator."""

    groups: dict[str, tuple[str, ...]]
    """Attributes of each group."""
    source: Pictures
    """a, uint8 [N, 3, H, W]."""
    target: Pictures
    """b, the same shape."""
    labels_a: NDArray[np.uint8]
    """0/1 [N, L]."""
    labels_b: NDArray[np.uint8]
    """0/1 [N, L]."""
    pictures: Pictures
    """For the evaluator, uint8 [M, 3, H, W]; no picture of a pair is among them."""
    labels: NDArray[np.uint8]
    """Theirs, [M, L]."""
    truths: dict[str, Pictures] = field(default_factory=dict)
    """Per group: a drawn again with b's options of that group, uint8 [N, 3, H, W]; built-in set only."""
    middles: dict[str, Pictures] = field(default_factory=dict)
    """Per colour group: a drawn again in the colour half way; built-in set only."""
    swapped: dict[str, Pictures] = field(default_factory=dict)
    """Per group that is no colour: b drawn again with a's options of that group, the same shape; built-in set only."""
    mixed_source: Pictures | None = None
    """a drawn again with every colour mixed at each of `GHOST_STRENGTHS`, uint8 [N, V, 3, H, W]; built-in set only."""
    mixed_target: Pictures | None = None
    """b drawn again with the same colours, the same shape."""
    between: Pictures | None = None
    """Two pictures a pair that could stand on the way from a to b, drawn, uint8 [2 N, 3, H, W]; built-in set only."""

    def columns(self, group: str) -> slice:
        """The group's columns of the labels."""
        start = 0
        for name, attributes in self.groups.items():
            if name == group:
                return slice(start, start + len(attributes))
            start += len(attributes)
        raise KeyError(group)


def read_held_out(
    data: LabelledPictures, picture_size: int, pairs: int, seed: int | None, report: Report = silent
) -> HeldOut:
    """Read a data folder's first pictures as pairs and its others for the evaluator, and draw the truths.

    Args:
        data: the folder, read.
        picture_size: height and width in pixels that the models take.
        pairs: number of pairs.
        seed: of the built-in set, if that is what the folder holds; else None, and there are no truths.
        report: called after each picture.

    Raises:
        DataError: there are too few pictures, or one cannot be read.
    """
    usable = [index for index, known in enumerate(data.known.all(axis=1)) if known]
    needed = 2 * pairs + 500
    if len(usable) < needed:
        raise DataError(
            f"{pairs} pairs and a classifier to judge them need {needed} pictures whose labels are all known, "
            f"there are {len(usable)}: give more pictures or fewer --pairs"
        )
    chosen = usable[: 2 * pairs + MAX_TRAINING]
    # What a group changes is known of the groups that the set was drawn with.
    drawn = {} if seed is None else avatars.GROUPS
    truthful = [group for group, names in data.groups.items() if drawn.get(group) == names]
    looks = [] if seed is None else [avatars.draw_looks(seed, _index(data.paths[i])) for i in chosen[: 2 * pairs]]
    # A group that is no colour is drawn on either picture of a pair.
    drawings = sum(1 if avatars.is_colour_group(group) else 2 for group in truthful)
    total = len(chosen) + pairs * drawings + (2 + 2 * len(GHOST_STRENGTHS)) * len(looks[:pairs])
    pictures = np.empty((len(chosen), 3, picture_size, picture_size), dtype=np.uint8)
    for done, index in enumerate(chosen):
        pictures[done] = fit_picture(data.paths[index], picture_size).transpose(2, 0, 1)
        report(Progress("pictures", done + 1, total))
    labels = data.labels[chosen]
    held_out = HeldOut(
        groups=data.groups,
        source=pictures[:pairs],
        target=pictures[pairs : 2 * pairs],
        labels_a=labels[:pairs],
        labels_b=labels[pairs : 2 * pairs],
        pictures=pictures[2 * pairs :],
        labels=labels[2 * pairs :],
    )
    done = len(chosen)
    for group in truthful:
        truths, middles = np.empty_like(held_out.source), np.empty_like(held_out.source)
        has_middle = False
        for row, (ours, theirs) in enumerate(zip(looks[:pairs], looks[pairs:], strict=True)):
            truths[row] = _render(avatars.with_group(ours, theirs, group), picture_size)
            if colours := avatars.middle_colours(ours, theirs, group):
                middles[row] = _render(ours, picture_size, colours)
                has_middle = True
            done += 1
            report(Progress("pictures", done, total))
        held_out.truths[group] = truths
        if has_middle:
            held_out.middles[group] = middles
        if not avatars.is_colour_group(group):
            held_out.swapped[group] = np.empty_like(held_out.target)
            for row, (ours, theirs) in enumerate(zip(looks[:pairs], looks[pairs:], strict=True)):
                held_out.swapped[group][row] = _render(avatars.with_group(theirs, ours, group), picture_size)
                done += 1
                report(Progress("pictures", done, total))
    if looks:
        held_out.mixed_source = np.empty((pairs, len(GHOST_STRENGTHS), *held_out.source.shape[1:]), dtype=np.uint8)
        held_out.mixed_target = np.empty_like(held_out.mixed_source)
        for row, (ours, theirs) in enumerate(zip(looks[:pairs], looks[pairs:], strict=True)):
            for column, strength in enumerate(GHOST_STRENGTHS):
                colours = avatars.mixed_colours(ours, theirs, strength)
                held_out.mixed_source[row, column] = _render(ours, picture_size, colours)
                held_out.mixed_target[row, column] = _render(theirs, picture_size, colours)
                done += 2
                report(Progress("pictures", done, total))
        generator = np.random.default_rng(0)
        held_out.between = np.empty((2 * pairs, *held_out.source.shape[1:]), dtype=np.uint8)
        for row in range(2 * pairs):
            ours, theirs = looks[row % pairs], looks[pairs + row % pairs]
            between, mixed = avatars.on_the_way(ours, theirs, generator.random(), generator)
            held_out.between[row] = _render(between, picture_size, mixed)
            done += 1
            report(Progress("pictures", done, total))
    return held_out


def _index(path: Path) -> int:
    if not path.stem.isdecimal():
        raise DataError(
            f"{path} is not named as `homomorph render` does, so its truth is not known: remove render.json"
        )
    return int(path.stem)


def _render(looks: avatars.Looks, size: int, colours: dict[str, str] | None = None) -> Pictures:
    return avatars.render(looks, size, colours).transpose(2, 0, 1)
