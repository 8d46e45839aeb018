"""Measures a model in training within seconds. A run logs these figures at each checkpoint.

Training may not import this package, so the caller passes a function to it:

    held_out_figures: Callable[[MorphModel], dict[str, float]] | None

`prepare_checkpoint_figures` makes that function once, from a folder of held-out pictures. It reads the pairs, renders
them again if the set is a rendered one, and trains the judge. With 64 pairs of 64 pixels and 500 steps this takes about
half a minute on 2 cores. Each call then takes a few seconds. It does not change the model or torch's random state:

    figures = prepare_checkpoint_figures(Path("data/held_out"), picture_size=64)
    train(..., held_out_figures=figures)
    figures(model)  # {"transfer": 0.99, "transfer/glasses": 1.0, ..., "ghost": 0.31, "frechet": 120.4}

The figures are those of `homomorph evaluate`, but from fewer pairs. Compare them only with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homomorph.data.labels import read_labelled
from homomorph.errors import DataError
from homomorph.evaluation import figures
from homomorph.evaluation.chunk import make_chunk
from homomorph.evaluation.ghost import collect_ghost_frames, ghost_figures
from homomorph.evaluation.held_out import HeldOut, read_held_out, seed_of
from homomorph.evaluation.judge import Judge, JudgeSettings, train_judge
from homomorph.evaluation.measured_pairs import all_pairs
from homomorph.evaluation.methods import Homomorph
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.redrawn import GHOST_STRENGTHS
from homomorph.models.morph import MorphModel
from homomorph.progress import Report, silent

PAIRS = 64
"""Number of pairs. It shows a trend: at .9, `transfer` of a group has a standard error of about .03."""
JUDGE_STEPS = 500
_PAIR_CHUNK = 16


def prepare_checkpoint_figures(
    folder: Path,
    picture_size: int,
    *,
    pairs: int = PAIRS,
    judge_steps: int = JUDGE_STEPS,
    report: Report = silent,
) -> Callable[[MorphModel], dict[str, float]]:
    """Read a folder of held-out pictures and train a judge.

    Args:
        folder: labelled pictures that do not train the model, with its groups.
        picture_size: height and width in pixels that the model takes.
        pairs: largest number of pairs; a small folder gives fewer.
        judge_steps: training steps of the classifier that judges, on the other pictures of `folder`.
        report: called for each picture and each step.

    Returns:
        A function from a model to `transfer`, `preservation` (means over groups), `transfer/<group>`,
        `preservation/<group>`, `ghost`, `ghost_floor`, `symmetry` and `frechet`. A figure that cannot be measured is
        left out. The function raises `DataError` if the model has other groups than the folder.

    Raises:
        DataError: the folder cannot be used.
    """
    held_out = read_held_out(read_labelled(folder), picture_size, pairs, seed_of(folder), report)
    trained_judge, _ = train_judge(JudgeSettings(steps=judge_steps), held_out, report)

    def held_out_figures(model: MorphModel) -> dict[str, float]:
        if model.config.groups != held_out.groups:
            raise DataError(f"{folder} has other groups than the model: {', '.join(held_out.groups)}")
        was_training = model.training
        model.eval()
        try:
            return _measure(model, held_out, trained_judge)
        finally:
            model.train(was_training)

    return held_out_figures


def _measure(model: MorphModel, held_out: HeldOut, judge: Judge) -> dict[str, float]:
    groups = list(held_out.groups)
    values = PairValues()
    measured = all_pairs(Homomorph(model), held_out)
    generator = np.random.default_rng(0)
    for start in range(0, len(measured.rows), _PAIR_CHUNK):
        chunk = make_chunk(measured, held_out, measured.rows[start : start + _PAIR_CHUNK], judge)
        # One morph gives all frames of a pair: each group alone at 1, then all groups together.
        together = np.concatenate(
            [np.tile(GHOST_STRENGTHS, (len(chunk.rows), 1)), generator.random((len(chunk.rows), 2))], axis=1
        )
        frames = chunk.method.morph(chunk.a, chunk.b, _strengths(together, len(groups), len(chunk.branches)))
        alone = frames[:, : len(groups)]
        probabilities = judge.judge(alone.reshape(-1, *chunk.a.shape[1:]))[0].reshape(*alone.shape[:2], -1)
        for column, group in enumerate(groups):
            read, columns = probabilities[:, column], held_out.columns(group)
            values.add(f"transfer.{group}", figures.transfer(read, chunk.labels_a, chunk.labels_b, columns))
            values.add(f"preservation.{group}", figures.preservation(read, chunk.preserved_labels, columns))
        collect_ghost_frames(values, chunk, frames[:, len(groups) : -2])
        values.add("features", judge.judge(frames[:, -2:].reshape(-1, *chunk.a.shape[1:]))[1])
        values.add("features.real", judge.judge(np.concatenate([chunk.a, chunk.b]))[1])

    result: dict[str, float] = {}
    for name in ("transfer", "preservation"):
        per_group = {group: values.mean(f"{name}.{group}") for group in groups}
        result[name] = float(np.nanmean(list(per_group.values())))
        result |= {f"{name}/{group}": value for group, value in per_group.items()}
    result |= {name: value for name, value in ghost_figures(values).items() if isinstance(value, float)}
    result["frechet"] = figures.frechet(values.all("features"), values.all("features.real"))
    return {name: value for name, value in result.items() if not np.isnan(value)}


def _strengths(together: NDArray[np.float64], groups: int, branches: int) -> NDArray[np.float32]:
    """Strengths with each group alone at 1, then with all branches at [B, S]: [B, groups + S, branches]."""
    strengths = np.zeros((len(together), groups + together.shape[1], branches), dtype=np.float32)
    strengths[:, :groups] = np.eye(groups, branches)
    strengths[:, groups:] = together[:, :, None]
    return strengths
