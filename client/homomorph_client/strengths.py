"""Strengths: how much of the target each group has in each frame, as the served models want them, [S, K]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from homomorph_client.errors import StrengthError

Strengths: TypeAlias = "npt.ArrayLike | Mapping[str, npt.ArrayLike]"
"""An array [S, K] with columns in the order of the groups, or per group a number or S numbers (others stay 0)."""

MAX_STRENGTH = 2.0
"""0 is as in the source, 1 as in the target, this twice as far."""
DEFAULT_STEPS = 9
"""Frames of a morph when nothing else is asked for."""
MAX_STEPS = 256
"""Most frames that one request may ask for."""


def chosen_strengths(
    groups: Sequence[str], *, steps: int | None, strengths: Strengths | None
) -> npt.NDArray[np.float32]:
    """Return the strengths for either of the two ways of asking for a morph.

    Args:
        groups: names of the groups in the order of the columns, K of them.
        steps: number S of frames in which all groups go evenly from 0 to 1; None is `DEFAULT_STEPS`.
        strengths: the strengths themselves instead, as for `to_strengths`.

    Returns:
        float32 [S, K] in [0, `MAX_STRENGTH`].

    Raises:
        StrengthError: both were given, or what was given cannot be used.
    """
    if strengths is None:
        return np.repeat(even_ramp(DEFAULT_STEPS if steps is None else steps)[:, None], len(groups), axis=1)
    if steps is not None:
        raise StrengthError("give steps or strengths, not both: the strengths say how many frames there are")
    return to_strengths(groups, strengths)


def even_ramp(steps: int, end: float = 1.0) -> npt.NDArray[np.float32]:
    """Return `steps` numbers from 0 to `end`.

    Raises:
        StrengthError: `steps` is not from 2 to `MAX_STEPS`.
    """
    if not 2 <= steps <= MAX_STEPS:
        raise StrengthError(f"steps must be from 2 to {MAX_STEPS}, not {steps}")
    return np.linspace(0, end, steps, dtype=np.float32)


def grid_strengths(groups: Sequence[str], *, rows: str, columns: str, size: int) -> npt.NDArray[np.float32]:
    """Return the strengths of a square grid: one group grows from 0 to 1 down the rows, another along the columns.

    Args:
        groups: names of the groups, K of them; those other than the two stay 0.
        rows: group that is constant along each row.
        columns: group that is constant along each column.
        size: number N of rows and of columns.

    Returns:
        float32 [N * N, K], row by row.

    Raises:
        StrengthError: a group is unknown, both are the same, or the grid has too few or too many cells.
    """
    check_groups(groups, (rows, columns))
    if rows == columns:
        raise StrengthError(f"rows and columns must be different groups, not {rows!r} twice")
    if size * size > MAX_STEPS:
        raise StrengthError(f"a grid has at most {MAX_STEPS} cells: {size}x{size} are too many")
    ramp = even_ramp(size)
    cells = np.zeros((size, size, len(groups)), np.float32)
    cells[:, :, groups.index(rows)] = ramp[:, None]
    cells[:, :, groups.index(columns)] = ramp[None, :]
    return cells.reshape(size * size, len(groups))


def to_strengths(groups: Sequence[str], strengths: Strengths) -> npt.NDArray[np.float32]:
    """Check strengths and bring them to [S, K].

    Args:
        groups: names of the groups in the order of the columns, K of them.
        strengths: an array [S, K], or a mapping from group to S numbers, or to one number for all frames.

    Returns:
        float32 [S, K] in [0, `MAX_STRENGTH`].

    Raises:
        StrengthError: a group is unknown, lengths differ, or a value is no finite number in range.
    """
    if isinstance(strengths, Mapping):
        array = _from_mapping(groups, strengths)
    else:
        array = _numbers(strengths, "strengths")
        if array.ndim != 2 or array.shape[1] != len(groups):
            names = ", ".join(groups)
            raise StrengthError(f"strengths must be [S, {len(groups)}] (columns {names}), not {list(array.shape)}")
    if not 1 <= len(array) <= MAX_STEPS:
        raise StrengthError(f"strengths must be for 1 to {MAX_STEPS} frames, not {len(array)}")
    return array


def check_groups(groups: Sequence[str], names: Sequence[str]) -> None:
    """Check that all names are groups of the model.

    Raises:
        StrengthError: one is not; the message lists those that are.
    """
    for name in names:
        if name not in groups:
            raise StrengthError(f"there is no group {name!r}: the model has {', '.join(groups)}")


def _from_mapping(groups: Sequence[str], strengths: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float32]:
    check_groups(groups, list(strengths))
    if not strengths:
        raise StrengthError("strengths name no group: give at least one, such as {'glasses': [0, 0.5, 1]}")
    columns = {name: _numbers(values, f"strengths of {name!r}") for name, values in strengths.items()}
    for name, column in columns.items():
        if column.ndim > 1:
            raise StrengthError(f"strengths of {name!r} must be one number or [S], not {list(column.shape)}")
    lengths = {name: len(column) for name, column in columns.items() if column.ndim == 1}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise StrengthError(f"all groups need strengths for the same number of frames, not {counts}")
    array = np.zeros((next(iter(lengths.values()), 1), len(groups)), np.float32)
    for name, column in columns.items():
        array[:, groups.index(name)] = column
    return array


def _numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise StrengthError(f"{name} must be numbers in a regular array: {error}") from error
    if array.dtype.kind not in "iuf":  # "0.5" and True would silently become numbers
        raise StrengthError(f"{name} must be numbers, not {values!r}" if array.ndim == 0 else f"{name} must be numbers")
    if not np.isfinite(array).all():
        raise StrengthError(f"{name} must be finite numbers: found NaN or infinity")
    if array.size and (array.min() < 0 or array.max() > MAX_STRENGTH):
        low, high = array.min(), array.max()
        raise StrengthError(f"{name} must lie in [0, {MAX_STRENGTH:g}]: found {low:g} to {high:g}")
    return array.astype(np.float32)
