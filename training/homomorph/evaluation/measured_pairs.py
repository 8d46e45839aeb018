"""The pairs that methods are measured on, with groups and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homomorph.errors import DataError
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.methods import ComparedMethod
from homomorph.evaluation.translation import Direction, Translation
from homomorph.models.cyclegan import CycleGAN


@dataclass(frozen=True)
class MeasuredPairs:
    """A method, and the pairs and groups that it is measured on."""

    method: ComparedMethod
    rows: NDArray[np.intp]
    """Numbers of the pairs."""
    columns: dict[str, slice]
    """The groups that the method moves -> the columns of the labels that should change."""
    directions: tuple[Direction, ...] = ()
    """Changes of one attribute, in which it is compared with CycleGANs on the same pairs."""


def all_pairs(method: ComparedMethod, held_out: HeldOut, directions: Sequence[Direction] = ()) -> MeasuredPairs:
    """Return all pairs, each with every group."""
    columns = {group: held_out.columns(group) for group in held_out.groups}
    return MeasuredPairs(method, np.arange(len(held_out.source)), columns, tuple(directions))


def translated_pairs(model: CycleGAN, directions: Sequence[Direction], held_out: HeldOut) -> list[MeasuredPairs]:
    """Return for each direction of a CycleGAN its attribute, and the pairs in which it changes from a to b.

    Raises:
        DataError: there is no such pair for one of the directions.
    """
    measured_pairs = []
    for direction in directions:
        rows = np.flatnonzero(direction.applies(held_out))
        if not len(rows):
            raise DataError(f"no pair goes the way {direction.name} from a to b: give more --pairs")
        columns = {direction.group: slice(direction.column, direction.column + 1)}
        measured_pairs.append(MeasuredPairs(Translation(model, direction.name), rows, columns, (direction,)))
    return measured_pairs
