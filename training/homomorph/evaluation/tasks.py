"""What each method is measured on: which pairs, which groups, which labels of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homomorph.errors import DataError
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.methods import Method
from homomorph.evaluation.translation import Direction, Translation
from homomorph.models.cyclegan import CycleGAN


@dataclass(frozen=True)
class Task:
    """One method and its work."""

    method: Method
    rows: NDArray[np.intp]
    """The pairs that count."""
    columns: dict[str, slice]
    """The groups that it is asked to move, with the labels that shall change."""
    directions: tuple[Direction, ...] = ()
    """Changes of one attribute, for which it is held against CycleGANs on the same pairs."""


def whole_task(method: Method, held_out: HeldOut, directions: Sequence[Direction] = ()) -> Task:
    """Every group of every pair."""
    columns = {group: held_out.columns(group) for group in held_out.groups}
    return Task(method, np.arange(len(held_out.source)), columns, tuple(directions))


def translation_tasks(model: CycleGAN, directions: Sequence[Direction], held_out: HeldOut) -> list[Task]:
    """For each direction of a CycleGAN, its attribute in the pairs that go this way from a to b.

    Raises:
        DataError: no pair goes one of the ways.
    """
    tasks = []
    for direction in directions:
        rows = np.flatnonzero(direction.applies(held_out))
        if not len(rows):
            raise DataError(f"no pair goes the way {direction.name} from a to b: give more --pairs")
        columns = {direction.group: slice(direction.column, direction.column + 1)}
        tasks.append(Task(Translation(model, direction.name), rows, columns, (direction,)))
    return tasks
