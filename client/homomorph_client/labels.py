"""The labels of an edit, as the served model takes them: float32 [L]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from homomorph_client.errors import LabelError
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths

Labels: TypeAlias = "Mapping[str, str | Sequence[str]]"
"""For each group that changes: one label, several, or none of its labels (an empty sequence)."""


def chosen_edit(
    model: ServedModel,
    labels: Labels,
    *,
    steps: int | None,
    strengths: Strengths | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the labels and strengths of one edit.

    Args:
        model: the served model, with K groups and L labels.
        labels: the wanted labels of each group that changes.
        steps: number S of frames in which these groups go evenly from 0 to 1; None is `DEFAULT_STEPS`.
        strengths: the strengths themselves instead, as for `to_strengths`.

    Returns:
        Labels, float32 0/1 [L], and strengths, float32 [S, K].

    Raises:
        LabelError: a group or label is unknown, none is named, or strengths move a group that `labels` does not name.
        StrengthError: steps or strengths cannot be used.
    """
    if not isinstance(labels, Mapping):
        raise LabelError(f"labels must map groups to labels, as in {{'glasses': 'round'}}, not {labels!r:.40}")
    if not labels:
        raise LabelError("labels name no group: give at least one, such as {'glasses': 'round_glasses'}")
    groups, known = model.groups, model.labels
    wanted: dict[str, Sequence[str]] = {}
    for group, names in labels.items():
        if group not in known:
            raise LabelError(f"there is no group {group!r} with labels: the model has {', '.join(known)}")
        if not isinstance(names, Iterable):
            raise LabelError(f"labels of {group!r} must be a name or a list of names ([] is none), not {names!r}")
        wanted[group] = [names] if isinstance(names, str) else list(names)
        for name in wanted[group]:
            if name not in known[group]:
                raise LabelError(f"{group} has no label {name!r}: it has {', '.join(known[group])}")
    row = [float(name in wanted.get(group, ())) for group, names in known.items() for name in names]
    chosen = chosen_strengths(model, steps=steps, strengths=strengths, groups=wanted)
    moved = [group for group, column in zip(groups, chosen.T, strict=True) if column.any() and group not in wanted]
    if moved:
        raise LabelError(f"strengths move {', '.join(moved)}, but no label is given for them")
    return np.array(row, np.float32), chosen
