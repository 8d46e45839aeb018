"""A few figures of a model in training, in seconds: what a run logs at each checkpoint.

Training may not import this room, so whoever starts a training passes a function in:

    held_out_figures: Callable[[MorphModel], dict[str, float]] | None

`prepare_checkpoint_figures` makes that function from a folder of held-out pictures, once: it reads the pairs, draws
them again where it can, and trains the judge (64 pairs of 64 pixels and 500 steps: about half a minute on 2 cores).
Each call then takes a few seconds, leaves the model as it was, and draws no random numbers of torch's:

    figures = prepare_checkpoint_figures(Path("data/held_out"), picture_size=64)
    train(..., held_out_figures=figures)
    figures(model)  # {"transfer": 0.99, "transfer/glasses": 1.0, ..., "ghost": 0.31, "frechet": 120.4}

The figures are those of `homomorph evaluate`, on fewer pairs: compare them with each other, not with its.
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
from homomorph.evaluation.judge import Judge, JudgeChoice, train_judge
from homomorph.evaluation.methods import Homomorph
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.redrawn import GHOST_STRENGTHS
from homomorph.evaluation.tasks import whole_task
from homomorph.models.morph import MorphModel
from homomorph.progress import Report, silent

PAIRS = 64
"""Enough to see a trend: `transfer` of a group then has a standard error of about .03 at .9."""
JUDGE_STEPS = 500
_PAIR_CHUNK = 16


def prepare_checkpoint_figures(
    folder: Path,
    picture_size: int,
    *,
    pairs: int = PAIRS,
    judge: JudgeChoice = "classifier",
    judge_folder: Path | None = None,
    judge_steps: int = JUDGE_STEPS,
    report: Report = silent,
) -> Callable[[MorphModel], dict[str, float]]:
    """Read a folder of held-out pictures and train a judge.

    Args:
        folder: labelled pictures that do not train the model, with its groups; a rendered set is drawn again.
        picture_size: height and width in pixels that the model takes.
        pairs: number of pairs that are wanted; a small folder gives fewer.
        judge: what reads pictures.
        judge_folder: labelled pictures that train the judge, which may be those that train the model; None takes the
            folder's other pictures.
        judge_steps: steps that train the classifier.
        report: called for each picture and each step.

    Returns:
        A function from a model to `transfer`, `preservation` (means over groups), `transfer/<group>`,
        `preservation/<group>`, `ghost`, `ghost_floor`, `symmetry` and `frechet`. A figure that cannot be taken is left
        out. It raises `DataError` where the model has other groups than the folder.

    Raises:
        ConfigError: the packages of the judge are not installed.
        DataError: a folder cannot be used.
    """
    judge_data = None if judge_folder is None else read_labelled(judge_folder)
    held_out = read_held_out(read_labelled(folder), picture_size, pairs, seed_of(folder), report, judge_data=judge_data)
    trained_judge, _ = train_judge(judge, held_out, judge_steps, report)

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
    task = whole_task(Homomorph(model), held_out)
    generator = np.random.default_rng(0)
    for start in range(0, len(task.rows), _PAIR_CHUNK):
        chunk = make_chunk(task, held_out, task.rows[start : start + _PAIR_CHUNK], judge)
        # All frames of a pair in one morph: each group alone at 1, then all together.
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
    """Each of the groups alone at 1, then all branches at the strengths [B, S]: [B, groups + S, branches]."""
    strengths = np.zeros((len(together), groups + together.shape[1], branches), dtype=np.float32)
    strengths[:, :groups] = np.eye(groups, branches)
    strengths[:, groups:] = together[:, :, None]
    return strengths
