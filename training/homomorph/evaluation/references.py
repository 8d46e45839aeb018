"""`frechet` of real and of drawn pictures, as references for that of a method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from homomorph.evaluation import figures
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.judge import Judge
from homomorph.evaluation.redrawn import GHOST_STRENGTHS


def frechet_floor(held_out: HeldOut, judge: Judge, rows: NDArray[np.intp]) -> float:
    """Return `frechet` of real pictures that are in no pair, as many as a method has frames: that of perfect frames.

    Args:
        held_out: pairs and other pictures.
        judge: trained.
        rows: the pairs that count.

    Returns:
        NaN if there are fewer pictures, because their distance would be larger by their number alone.
    """
    pairs = np.concatenate([held_out.source[rows], held_out.target[rows]])
    if len(held_out.pictures) < len(pairs):
        return float("nan")
    # The first ones, because the pictures that did not train the judge come first.
    others = held_out.pictures[: len(pairs)]
    return figures.frechet(judge.judge(others)[1], judge.judge(pairs)[1])


def frechet_drawn(held_out: HeldOut, judge: Judge) -> float:
    """Return `frechet` of drawn pictures between a and b: colours are mixed, everything else is a's or b's.

    No frame of a morph can be more believable than these; they jump from one look to the next.

    Returns:
        NaN where the pictures cannot be drawn again.
    """
    if held_out.redrawn is None:
        return float("nan")
    return _to_pairs(held_out, judge, held_out.redrawn.between)


def frechet_ends(held_out: HeldOut, judge: Judge) -> float:
    """Return `frechet` of a and b drawn in mixed colours, as `ghost` compares frames with: one strength for each pair.

    Frames that show a or b whole, in mixed colours, would get this.

    Returns:
        NaN where the pictures cannot be drawn again.
    """
    if held_out.redrawn is None:
        return float("nan")
    rows = np.arange(len(held_out.source))
    columns = rows % len(GHOST_STRENGTHS)
    ends = np.concatenate([held_out.redrawn.mixed_a[rows, columns], held_out.redrawn.mixed_b[rows, columns]])
    return _to_pairs(held_out, judge, ends)


def _to_pairs(held_out: HeldOut, judge: Judge, pictures: NDArray[np.uint8]) -> float:
    pairs = np.concatenate([held_out.source, held_out.target])
    return figures.frechet(judge.judge(pictures)[1], judge.judge(pairs)[1])
