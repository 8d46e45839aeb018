"""The pairs that figures are taken on, and the pictures that train the judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homomorph.data import avatars
from homomorph.data.labels import LabelledPictures, group_columns
from homomorph.data.provenance import read_provenance
from homomorph.errors import DataError
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.redrawn import Redrawn, drawings_per_pair, redraw
from homomorph.progress import Progress, Report, silent
from homomorph_client.pictures import fit_picture

MAX_TRAINING = 8000
"""Largest number of pictures that train the judge."""
MIN_TRAINING = 500
"""Completely labelled pictures that are left for the judge. Of fewer than twice as many, half are left."""
MIN_PAIRS = 16
"""Smallest number of pairs; figures of fewer pairs are too uncertain."""


@dataclass
class HeldOut:
    """N pairs of pictures that no model has seen, and further pictures that train the judge."""

    groups: dict[str, tuple[str, ...]]
    """Attributes of each group."""
    source: Pictures
    """a, uint8 [N, 3, H, W]."""
    target: Pictures
    """b, the same shape."""
    labels_a: NDArray[np.uint8]
    """0 or 1, [N, L]."""
    labels_b: NDArray[np.uint8]
    """0 or 1, [N, L]."""
    pictures: Pictures
    """Pictures for the judge, uint8 [M, 3, H, W]; no picture of a pair is among them."""
    labels: NDArray[np.uint8]
    """Labels of `pictures`: 0, 1 or `UNKNOWN`, [M, L]."""
    redrawn: Redrawn | None = None
    """The pairs drawn again with something changed; None if the set is not the built-in one."""

    def columns(self, group: str) -> slice:
        """The group's columns of the labels."""
        return group_columns(self.groups)[group]


def seed_of(folder: Path) -> int | None:
    """Return the seed that a data folder was drawn with; None where it is not the built-in set.

    Raises:
        DataError: the folder's `render.json` cannot be read.
    """
    provenance = read_provenance(folder)
    return provenance.seed if provenance is not None and provenance.style == avatars.STYLE else None


def read_held_out(
    data: LabelledPictures,
    picture_size: int,
    pairs: int,
    seed: int | None,
    report: Report = silent,
    *,
    judge_data: LabelledPictures | None = None,
) -> HeldOut:
    """Read a data folder's first completely labelled pictures as pairs, the others for the judge, and draw the truths.

    Of a small set fewer pairs are read than are asked for, so that `MIN_TRAINING` completely labelled pictures, or half
    of them, are left for the judge.

    Args:
        data: the folder, read.
        picture_size: height and width in pixels that the models take.
        pairs: number of pairs that are wanted.
        seed: of the built-in set, if that is what the folder holds; else None, and nothing is drawn again.
        report: called after each picture.
        judge_data: pictures that train the judge instead, with the same groups; then all of `data` can be pairs.

    Raises:
        DataError: there are too few pictures, or one cannot be read, or `judge_data` has other groups.
    """
    if judge_data is not None and judge_data.groups != data.groups:
        raise DataError("the pictures that train the judge must have the groups of those that are evaluated")
    complete = np.flatnonzero(data.known.all(axis=1))
    for_judge = 0 if judge_data is not None else min(MIN_TRAINING, len(complete) // 2)
    possible = (len(complete) - for_judge) // 2
    if possible < MIN_PAIRS:
        raise DataError(
            f"{MIN_PAIRS} pairs and a judge need {4 * MIN_PAIRS} pictures whose labels are all known, "
            f"there are {len(complete)}: give more pictures"
        )
    pairs = min(pairs, possible)
    chosen = complete[: 2 * pairs]
    if judge_data is None:
        judge_data, for_training = data, _for_training(data, chosen)
    else:
        for_training = _for_training(judge_data, np.zeros(0, dtype=np.intp))

    # Only the groups that the set was drawn with can be drawn again.
    drawn_groups = {} if seed is None else avatars.GROUPS
    groups = [group for group, names in data.groups.items() if drawn_groups.get(group) == names]
    looks = [] if seed is None else [avatars.draw_looks(seed, _index(data.paths[index])) for index in chosen]
    total = len(chosen) + len(for_training) + (pairs * drawings_per_pair(groups) if looks else 0)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(Progress("pictures", done, total))

    def read(of: LabelledPictures, indices: NDArray[np.intp]) -> Pictures:
        pictures = np.empty((len(indices), 3, picture_size, picture_size), dtype=np.uint8)
        for row, index in enumerate(indices):
            pictures[row] = fit_picture(of.paths[index], picture_size).transpose(2, 0, 1)
            advance(1)
        return pictures

    pictures = read(data, chosen)
    held_out = HeldOut(
        groups=data.groups,
        source=pictures[:pairs],
        target=pictures[pairs:],
        labels_a=data.labels[chosen[:pairs]],
        labels_b=data.labels[chosen[pairs:]],
        pictures=read(judge_data, for_training),
        labels=judge_data.labels[for_training],
    )
    if looks:
        redrawn = redraw(looks[:pairs], looks[pairs:], groups, picture_size, advance)
        held_out = replace(held_out, redrawn=redrawn)
    return held_out


def _for_training(data: LabelledPictures, used: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the pictures for the judge: all with a label, except `used`; shuffled if some labels are unknown."""
    labelled = np.flatnonzero(data.known.any(axis=1))
    free = np.setdiff1d(labelled, used)
    if not data.known[free].all():
        # The first tenth measures the judge's accuracy, so it must be like the rest.
        free = np.random.default_rng(0).permutation(free)
    return free[:MAX_TRAINING]


def _index(path: Path) -> int:
    if not path.stem.isdecimal():
        raise DataError(
            f"{path} is not named as `homomorph render` does, so its truth is not known: remove render.json"
        )
    return int(path.stem)
