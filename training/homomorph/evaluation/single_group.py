"""Figures of one group that moves alone, from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homomorph.evaluation import figures
from homomorph.evaluation.chunk import Chunk
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.methods import ComparedMethod
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.results import Figures
from homomorph.models.config import RESIDUAL

GROUP_FRAMES = 11
"""Values of a single group's strength, 0 and 1 included."""
WORST = 4
"""Pairs per group that are kept because they came out worst."""


@dataclass(frozen=True)
class GroupMorphs:
    """Morphs of B pairs with one group's strength from 0 to 1."""

    frames: Pictures
    """uint8 [B, GROUP_FRAMES, 3, H, W]."""
    probabilities: NDArray[np.float64]
    """The judge's, of each frame, [B, GROUP_FRAMES, L]."""
    shifted_probabilities: NDArray[np.float64]
    """The same of morphs of shifted pictures at v_g = 1, [B, L]."""


class WorstFrames:
    """The frames of a group that are furthest from what they should show."""

    def __init__(self) -> None:
        self._ranked: list[tuple[float, int, Pictures]] = []

    def add(self, rows: NDArray[np.intp], errors: NDArray[np.float64], frames: Pictures) -> None:
        """Add frames and keep the worst; frames with an error of NaN are left out."""
        self._ranked += [
            (error, int(pair), frame.copy())
            for error, pair, frame in zip(errors, rows, frames, strict=True)
            if not np.isnan(error)
        ]
        self._ranked.sort(key=lambda entry: -entry[0])
        del self._ranked[WORST:]

    def frames(self) -> list[tuple[int, Pictures]]:
        """The pair's number and its frame, the worst first."""
        return [(pair, frame) for _, pair, frame in self._ranked]


def collect_group(
    values: PairValues, worst: WorstFrames, chunk: Chunk, group: str, morphs: GroupMorphs, path: Pictures
) -> None:
    """Measure one group that moves alone.

    Args:
        values: receives the measurements.
        worst: receives the worst frames.
        chunk: B pairs.
        group: which group.
        morphs: of this group.
        path: frames with all strengths equal, of which the first and the last are a and b, uint8 [B, S, 3, H, W].
    """
    columns, probabilities = chunk.measured.columns[group], morphs.probabilities
    values.add(f"transfer.{group}", figures.transfer(probabilities[:, -1], chunk.labels_a, chunk.labels_b, columns))
    values.add(
        f"preservation.{group}",
        figures.preservation(probabilities[:, -1], chunk.preserved_labels, chunk.held_out.columns(group)),
    )
    shifted = figures.transfer(morphs.shifted_probabilities, chunk.labels_a, chunk.labels_b, columns)
    values.add(f"shifted.{group}", shifted)
    for direction in chunk.measured.directions:
        if direction.group == group:
            along = probabilities[direction.applies(chunk.held_out)[chunk.rows], :, direction.column]
            values.add(f"direction.{direction.name}", (along[:, -1] > 0.5) == direction.value)
            values.add(f"along.{direction.name}", along if direction.value else 1 - along)

    # Probability of b's label along the strength, where it differs from a's.
    differs = figures.differing(chunk.labels_a, chunk.labels_b)[:, columns]
    pair, label = np.nonzero(differs)
    target_labels = chunk.labels_b[:, columns][pair, label][:, None]
    along = probabilities[:, :, columns][pair, :, label]
    response = np.where(target_labels == 1, along, 1 - along)
    values.add(f"response.{group}", response)
    if not chunk.method.switches:  # of a single step there is no order
        values.add(f"monotonicity.{group}", figures.spearman(np.linspace(0, 1, GROUP_FRAMES), response))

    changes = figures.differing(chunk.held_out.labels_a[chunk.rows], chunk.held_out.labels_b[chunk.rows])
    changed = changes[:, columns].any(axis=1)
    values.add(f"moved.{group}", figures.absolute_error(morphs.frames[changed, -1], morphs.frames[changed, 0]))
    values.add(f"distance.{group}", figures.absolute_error(path[changed, -1], path[changed, 0]))

    errors = np.full(len(chunk.rows), np.nan)
    np.fmax.at(errors, pair, 1 - response[:, -1])
    redrawn = chunk.held_out.redrawn
    if redrawn is not None and group in redrawn.counterfactuals and changed.any():
        truth = redrawn.counterfactuals[group][chunk.rows][changed]
        errors[changed] = _collect_counterfactual(
            values, chunk.method, f"truth.{{}}.{group}", chunk.a[changed], morphs.frames[changed, -1], truth
        )
        if group in redrawn.half_colours and not chunk.method.switches:
            truth, half_way = (
                redrawn.half_colours[group][chunk.rows][changed],
                morphs.frames[changed, GROUP_FRAMES // 2],
            )
            _collect_counterfactual(values, chunk.method, f"half.{{}}.{group}", chunk.a[changed], half_way, truth)
    worst.add(chunk.rows, errors, morphs.frames[:, -1])


def collect_residual(values: PairValues, chunk: Chunk, path: Pictures) -> None:
    """Measure how far the residual branch alone moves a picture."""
    frames = chunk.method.morph(chunk.a, chunk.b, chunk.strengths(RESIDUAL, np.array([0.0, 1.0])))
    values.add(f"moved.{RESIDUAL}", figures.absolute_error(frames[:, -1], frames[:, 0]))
    values.add(f"distance.{RESIDUAL}", figures.absolute_error(path[:, -1], path[:, 0]))


def group_figures(values: PairValues, groups: list[str]) -> Figures:
    """`transfer`, `preservation`, `monotonicity`, `shift`, `movement`; where the truth is known, `counterfactual`."""
    per_group: dict[str, dict[str, float]] = {
        name: {group: values.mean(f"{name}.{group}") for group in groups}
        for name in ("transfer", "preservation", "monotonicity")
    }
    result: Figures = dict(per_group)
    if directions := values.names("direction."):
        result["transfer_direction"] = {name: values.mean(f"direction.{name}") for name in directions}
    for figure, truth in (("counterfactual", "truth"), ("counterfactual_half", "half")):
        if known := [group for group in groups if f"{truth}.before.{group}" in values]:
            result[figure] = {
                group: figures.counterfactual(
                    *(values.all(f"{truth}.{part}.{group}") for part in ("before", "after", "best"))
                )
                for group in known
            }
    losses = [values.mean(f"shifted.{group}") - per_group["transfer"][group] for group in groups]
    result["shift"] = float(np.mean(losses))
    result["movement"] = {
        name: float(values.all(f"moved.{name}").sum() / distance)
        for name in values.names("moved.")
        if (distance := values.all(f"distance.{name}").sum()) > 0
    }
    return result


def _collect_counterfactual(
    values: PairValues, method: ComparedMethod, name: str, source: Pictures, morphed: Pictures, truth: Pictures
) -> NDArray[np.float64]:
    """Compare with the truth, [B, 3, H, W] each; returns the errors of the morphs, [B]."""
    after = figures.squared_error(morphed, truth)
    values.add(name.format("before"), figures.squared_error(source, truth))
    values.add(name.format("after"), after)
    # A method that switches shows pictures as they are, too.
    best = None if method.switches else method.reconstruct(truth)
    values.add(name.format("best"), figures.squared_error(truth if best is None else best, truth))
    return after
