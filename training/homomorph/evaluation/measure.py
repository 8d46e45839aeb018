"""Measures all figures of one method, and keeps example pictures."""

from __future__ import annotations

from collections.abc import Sequence

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from homomorph.data.augmented import Jitter, positional_augmentation
from homomorph.evaluation.chunk import Chunk, make_chunk
from homomorph.evaluation.distance import Distance
from homomorph.evaluation.evaluator import moved_picture
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.ghost import collect_ghosts, collect_group_ghosts, ghost_figures
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.inception import InceptionDistance
from homomorph.evaluation.judge import Judge
from homomorph.evaluation.measured_pairs import MeasuredPairs
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.path import collect_path, path_figures
from homomorph.evaluation.reconstruction import collect_reconstruction, reconstruction_figures
from homomorph.evaluation.results import MethodResult
from homomorph.evaluation.single_group import (
    GROUP_FRAMES,
    GroupMorphs,
    WorstFrames,
    collect_group,
    collect_residual,
    group_figures,
)
from homomorph.progress import Progress, Report, silent

PAIR_CHUNK = 16
"""Number of pairs whose frames are in memory at once."""


def measure_method(
    measured_pairs: Sequence[MeasuredPairs],
    held_out: HeldOut,
    judge: Judge,
    distance: Distance,
    *,
    displayed_pairs: Sequence[int],
    lpips: Distance | None = None,
    inception: InceptionDistance | None = None,
    stage: str = "pairs",
    report: Report = silent,
) -> MethodResult:
    """Measure all figures of one method.

    Args:
        measured_pairs: the method's pairs, or those of each direction of a CycleGAN.
        held_out: pairs, and the truth where it is known.
        judge: trained.
        distance: d.
        displayed_pairs: numbers of the pairs whose frames are kept, if the method is measured on them.
        lpips: measures the figure `lpips`; None to leave that out.
        inception: measures the figure `fid`; None to leave that out.
        stage: name of the method in progress reports.
        report: called after each chunk of pairs.
    """
    groups = [group for group in held_out.groups if any(group in measured.columns for measured in measured_pairs)]
    values, strips = PairValues(), _Strips(groups)
    worst = {group: WorstFrames() for group in groups}
    generator = np.random.default_rng(0)
    augment = positional_augmentation(Jitter(shift=0.1, scale=0.1, rotation_deg=10, probability=1))
    done, total = 0, sum(len(measured.rows) for measured in measured_pairs)
    for measured in measured_pairs:
        for start in range(0, len(measured.rows), PAIR_CHUNK):
            chunk = make_chunk(measured, held_out, measured.rows[start : start + PAIR_CHUNK], judge)
            collect_reconstruction(values, chunk, judge, lpips)
            path = collect_path(values, chunk, judge, distance, generator, inception)
            if not measured.method.switches:
                collect_ghosts(values, chunk, path)
            displayed = np.isin(chunk.rows, displayed_pairs)
            strips.add_path(chunk, displayed, path)
            _collect_groups(values, worst, strips, chunk, judge, augment, displayed, path)
            done += len(chunk.rows)
            report(Progress(stage, done, total))

    figures = {
        **reconstruction_figures(values),
        **group_figures(values, groups),
        **path_figures(values),
        **ghost_figures(values),
        **({"fid": inception.distance()} if inception is not None else {}),
    }
    directions = values.names("along.")
    return MethodResult(
        figures=figures,
        pairs=total,
        displayed_pairs=strips.pairs,
        path_steps=values.all("steps").mean(axis=0),
        responses={group: values.all(f"response.{group}").mean(axis=0) for group in groups},
        direction_responses={name: values.all(f"along.{name}").mean(axis=0) for name in directions},
        path_strips=np.stack(strips.path),
        group_strips={group: np.stack(frames) for group, frames in strips.groups.items()},
        shifted_strips={group: np.stack(frames) for group, frames in strips.shifted.items()},
        worst={group: frames.frames() for group, frames in worst.items()},
    )


class _Strips:
    """Frames of the pairs that are displayed."""

    def __init__(self, groups: Sequence[str]) -> None:
        self.pairs: list[int] = []
        self.path: list[Pictures] = []
        self.groups: dict[str, list[Pictures]] = {group: [] for group in groups}
        self.shifted: dict[str, list[Pictures]] = {group: [] for group in groups}

    def add_path(self, chunk: Chunk, displayed: NDArray[np.bool_], frames: Pictures) -> None:
        self.pairs += chunk.rows[displayed].tolist()
        self.path += list(frames[displayed].copy())

    def add_group(self, group: str, frames: Pictures, shifted: Pictures) -> None:
        self.groups[group] += list(frames.copy())
        self.shifted[group] += list(shifted)


def _collect_groups(
    values: PairValues,
    worst: dict[str, WorstFrames],
    strips: _Strips,
    chunk: Chunk,
    judge: Judge,
    augment: A.Compose,
    displayed: NDArray[np.bool_],
    path: Pictures,
) -> None:
    """Move each group alone, in the original pictures and in shifted ones."""
    method = chunk.method
    strengths = np.linspace(0, 1, GROUP_FRAMES)
    shifted_a, shifted_b = _shifted(augment, chunk.rows, chunk.a, 0), _shifted(augment, chunk.rows, chunk.b, 1)
    morphs: GroupMorphs | None = None
    for group in chunk.measured.columns:
        alone = chunk.strengths(group, strengths)
        # Without groups, every group's slider is the same one.
        if morphs is None or method.has_groups:
            frames = method.morph(chunk.a, chunk.b, alone)
            probabilities = judge.judge(frames.reshape(-1, *chunk.a.shape[1:]))[0]
            shifted_probabilities = judge.judge(method.morph(shifted_a, shifted_b, alone[:, -1:])[:, 0])[0]
            morphs = GroupMorphs(frames, probabilities.reshape(*alone.shape[:2], -1), shifted_probabilities)
        collect_group(values, worst[group], chunk, group, morphs, path)
        if method.has_groups and not method.switches:
            collect_group_ghosts(values, chunk, group)
        if displayed.any():
            a, b = shifted_a[displayed], shifted_b[displayed]
            shifted = method.morph(a, b, alone[displayed])
            strips.add_group(group, morphs.frames[displayed], np.concatenate([a[:, None], shifted, b[:, None]], axis=1))
    if method.has_groups and not method.switches:
        collect_residual(values, chunk, path)


def _shifted(augment: A.Compose, rows: NDArray[np.intp], pictures: Pictures, side: int) -> Pictures:
    """Shift, scale and rotate one side's pictures of some pairs, the same way for every method."""
    shifted = []
    for row, picture in zip(rows.tolist(), pictures, strict=True):
        augment.set_random_seed(2 * row + side)
        shifted.append(moved_picture(augment, picture))
    return np.stack(shifted)
