"""Strengths: how much of the target each group has in each frame, as the served models take them: float32 [S, K]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from homomorph_client.errors import StrengthError
from homomorph_client.served_model import ServedModel, check_names

Strengths: TypeAlias = "npt.ArrayLike | Mapping[str, npt.ArrayLike]"
"""An array [S, K] with columns in the order of the groups, or per group a number or S numbers (others stay 0)."""

DEFAULT_STEPS = 9
"""Default number of frames of a morph."""


def chosen_strengths(
    model: ServedModel, *, steps: int | None, strengths: Strengths | None, groups: Iterable[str] | None = None
) -> npt.NDArray[np.float32]:
    """Return the strengths of a morph, from either `steps` or `strengths`.

    Args:
        model: the served model, with K groups.
        steps: number S of frames in which `groups` go evenly from 0 to 1; None is `DEFAULT_STEPS`.
        strengths: the strengths themselves instead, as for `to_strengths`.
        groups: None is all.

    Returns:
        float32 [S, K] from 0 to the model's limit.

    Raises:
        StrengthError: both were given, or what was given cannot be used.
    """
    if strengths is None:
        ramp = even_ramp(model, DEFAULT_STEPS if steps is None else steps)
        return to_strengths(model, dict.fromkeys(model.groups if groups is None else groups, ramp))
    if steps is not None:
        raise StrengthError("give steps or strengths, not both: the strengths say how many frames there are")
    return to_strengths(model, strengths)


def even_ramp(model: ServedModel, steps: int) -> npt.NDArray[np.float32]:
    """Return `steps` numbers from 0 to 1.

    Raises:
        StrengthError: `steps` is no whole number, less than 2, or more than the model allows.
    """
    if not isinstance(steps, Integral):
        raise StrengthError(f"steps must be a whole number, not {steps!r}")
    if not 2 <= steps <= model.max_steps:
        raise StrengthError(f"steps must be from 2 to {model.max_steps}, not {steps}")
    return np.linspace(0, 1, steps, dtype=np.float32)


def grid_strengths(model: ServedModel, *, rows: str, columns: str, size: int) -> npt.NDArray[np.float32]:
    """Return the strengths of a square grid: one group grows from 0 to 1 down the rows, another along the columns.

    Args:
        model: the served model; all groups except these two stay 0.
        rows: group that is constant along each row.
        columns: group that is constant along each column.
        size: number N of rows and of columns.

    Returns:
        float32 [N * N, K], row by row.

    Raises:
        StrengthError: a group is unknown, both are the same, or the grid has too few or too many cells.
    """
    groups = model.groups
    check_names((rows, columns), groups, "group", StrengthError)
    if rows == columns:
        raise StrengthError(f"rows and columns must be different groups, not {rows!r} twice")
    if size * size > model.max_steps:
        raise StrengthError(f"a grid has at most {model.max_steps} cells: {size}x{size} are too many")
    ramp = even_ramp(model, size)
    cells = np.zeros((size, size, len(groups)), np.float32)
    cells[:, :, groups.index(rows)] = ramp[:, None]
    cells[:, :, groups.index(columns)] = ramp[None, :]
    return cells.reshape(size * size, len(groups))


def to_strengths(model: ServedModel, strengths: Strengths) -> npt.NDArray[np.float32]:
    """Check strengths and bring them to [S, K].

    Args:
        model: the served model, with K groups.
        strengths: an array [S, K], or a mapping from group to S numbers, or to one number for all frames.

    Returns:
        float32 [S, K] from 0 to the model's limit.

    Raises:
        StrengthError: a group is unknown, lengths differ, or a value is no finite number in range.
    """
    if isinstance(strengths, Mapping):
        array = _from_mapping(model, strengths)
    else:
        array = _numbers(model, strengths, "strengths")
        if array.ndim != 2 or array.shape[1] != len(model.groups):
            names = ", ".join(model.groups)
            raise StrengthError(
                f"strengths must be [S, {len(model.groups)}] (columns {names}), not {list(array.shape)}"
            )
    if not 1 <= len(array) <= model.max_steps:
        raise StrengthError(f"strengths must be for 1 to {model.max_steps} frames, not {len(array)}")
    return array


def _from_mapping(model: ServedModel, strengths: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float32]:
    groups = model.groups
    check_names(list(strengths), groups, "group", StrengthError)
    if not strengths:
        raise StrengthError("strengths name no group: give at least one, such as {'glasses': [0, 0.5, 1]}")
    columns = {name: _numbers(model, values, f"strengths of {name!r}") for name, values in strengths.items()}
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


def _numbers(model: ServedModel, values: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise StrengthError(f"{name} must be numbers in a regular array: {error}") from error
    if array.dtype.kind not in "iuf":  # "0.5" and True would silently become numbers
        raise StrengthError(f"{name} must be numbers, not {values!r}" if array.ndim == 0 else f"{name} must be numbers")
    if not np.isfinite(array).all():
        raise StrengthError(f"{name} must be finite numbers: found NaN or infinity")
    if array.size and (array.min() < 0 or array.max() > model.max_strength):
        low, high = array.min(), array.max()
        raise StrengthError(f"{name} must lie in [0, {model.max_strength:g}]: found {low:g} to {high:g}")
    return array.astype(np.float32)
