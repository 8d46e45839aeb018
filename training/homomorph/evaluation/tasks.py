"""The tasks that methods are measured on: pairs, groups and labels."""

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
    """A method, and the pairs and groups that it is measured on."""

    method: Method
    rows: NDArray[np.intp]
    """Numbers of the pairs."""
    columns: dict[str, slice]
    """The groups that the method moves -> the columns of the labels that should change."""
    directions: tuple[Direction, ...] = ()
    """Changes of one attribute, in which it is compared with CycleGANs on the same pairs."""


def whole_task(method: Method, held_out: HeldOut, directions: Sequence[Direction] = ()) -> Task:
    """Return the task of moving every group of every pair."""
    columns = {group: held_out.columns(group) for group in held_out.groups}
    return Task(method, np.arange(len(held_out.source)), columns, tuple(directions))


def translation_tasks(model: CycleGAN, directions: Sequence[Direction], held_out: HeldOut) -> list[Task]:
    """Return a task for each direction of a CycleGAN: its attribute, in the pairs in which it changes from a to b.

    Raises:
        DataError: there is no such pair for one of the directions.
    """
    tasks = []
    for direction in directions:
        rows = np.flatnonzero(direction.applies(held_out))
        if not len(rows):
            raise DataError(f"no pair goes the way {direction.name} from a to b: give more --pairs")
        columns = {direction.group: slice(direction.column, direction.column + 1)}
        tasks.append(Task(Translation(model, direction.name), rows, columns, (direction,)))
    return tasks
