"""`homomorph evaluate`: every figure for every method, into one table, `metrics.json` and `report.html`."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from homomorph.data.labels import read_labelled
from homomorph.data.provenance import read_provenance
from homomorph.environment import environment
from homomorph.errors import CheckpointError, DataError
from homomorph.evaluation.cost import FRAMES, TURNS, cost, frame_times
from homomorph.evaluation.distance import Choice, find_lpips, judge_distance
from homomorph.evaluation.efficientnet import load_efficientnet
from homomorph.evaluation.held_out import HeldOut, read_held_out, seed_of
from homomorph.evaluation.inception import find_inception
from homomorph.evaluation.judge import JudgeChoice, train_judge
from homomorph.evaluation.measure import measure_method
from homomorph.evaluation.methods import PixelBlend, methods_of
from homomorph.evaluation.path import PATH_FRAMES
from homomorph.evaluation.references import frechet_drawn, frechet_ends, frechet_floor
from homomorph.evaluation.report import write_report
from homomorph.evaluation.results import MethodResult
from homomorph.evaluation.tasks import Task, translation_tasks, whole_task
from homomorph.evaluation.translation import Direction, directions_of
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.morph import MorphModel
from homomorph.progress import Report, silent
from homomorph.runs.cyclegan import is_cyclegan, load_cyclegan
from homomorph.runs.record import METRICS_FILE, TrainingRecord, read_record
from homomorph.runs.run import MODEL_FILE, load_model
from homomorph_client.files import replacing, sha256
from homomorph_client.output import check_writable

REPORT_FILE = "report.html"

_NO_TRAINING = TrainingRecord(pictures=0, hours=0, machine="")
STRIPS = 6
"""Pairs that the report shows, examples not counted."""


@dataclass(frozen=True)
class Example:
    """A pair that shows what sets the methods apart."""

    name: str
    """A direction of a CycleGAN; without one, the group."""
    group: str
    """What is moved."""
    pair: int
    """Number of the pair."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    results: dict[str, MethodResult]
    """Per method."""
    held_out: HeldOut
    """What it was measured on."""
    examples: list[Example]
    """Of each direction of a CycleGAN the first pair; without one, the first pair and group."""
    meta: dict[str, Any]
    """Pairs, seeds, weights, the judge's accuracy, what d is, references for `frechet`, versions, hardware."""
    notes: list[str]
    """What was left out or done otherwise than asked for, one sentence each."""


def evaluate(
    runs: dict[str, Path],
    folder: Path,
    out: Path,
    *,
    pairs: int,
    evaluator_steps: int,
    report: Report = silent,
    distance: Choice = "auto",
    judge: JudgeChoice = "classifier",
    judge_folder: Path | None = None,
    inception_file: Path | None = None,
    allow_missing: bool = False,
) -> Evaluation:
    """Compare the methods on pairs that no model was trained on, and write `metrics.json` and `report.html`.

    Args:
        runs: name -> run folder of either kind of network; the methods of each kind's first one have plain names, the
            others' end in `:name`.
        folder: labelled pictures, other ones than those of the training.
        out: folder for the two files; they appear whole or not at all.
        pairs: number of pairs that are wanted; a small folder gives fewer.
        evaluator_steps: steps that train the classifier that judges.
        report: called for each picture read, each training step of the judge, and each chunk of pairs.
        distance: what measures d.
        judge: what reads pictures.
        judge_folder: labelled pictures that train the judge, which may be those that trained a model; None takes the
            other pictures of `folder`.
        inception_file: weights of Inception for `fid`; None looks for them in torch hub's cache.
        allow_missing: whether rows of the tables whose picture is not there are left out.

    Raises:
        CheckpointError: a run cannot be loaded, or the runs take pictures of different sizes.
        ConfigError: the distance, the judge or Inception cannot be had.
        DataError: the data cannot be used, or lacks a group or an attribute that a run changes.
        OutputError: the files cannot be written; this is checked before anything is computed.
    """
    began = time.perf_counter()
    morphs, translations, picture_size = _load(runs)
    data = read_labelled(folder, allow_missing=allow_missing)
    attributes = [name for group in data.groups.values() for name in group]
    for name, model in morphs.items():
        if data.groups != model.config.groups:
            raise DataError(
                f"{folder} has the groups {', '.join(data.groups)} with their labels, {name} has "
                f"{', '.join(model.config.groups)} with its own: evaluate on data with its labels"
            )
    directions = {name: directions_of(model.config.directions, data.groups) for name, model in translations.items()}
    # Missing packages, weights and permissions are errors now, not after minutes of work.
    judge_data = read_labelled(judge_folder, allow_missing=allow_missing) if judge_folder else None
    if judge == "efficientnet":
        load_efficientnet()
    lpips, no_lpips = find_lpips(distance, picture_size)
    inception, no_inception = find_inception(inception_file)
    check_writable(out / METRICS_FILE)

    # Read the pictures, and draw the truths.
    provenance = read_provenance(folder)
    seed = seed_of(folder)
    held_out = read_held_out(data, picture_size, pairs, seed, report, judge_data=judge_data)
    compared = _compared(runs, morphs, translations, directions, held_out)
    notes = _notes(pairs, held_out, no_lpips, no_inception)
    pairs = len(held_out.source)

    # Train the judge.
    trained_judge, accuracy = train_judge(judge, held_out, evaluator_steps, report)

    # Measure.
    examples = _examples(compared, held_out)
    displayed_pairs = sorted({*range(min(STRIPS, pairs)), *(example.pair for example in examples)})
    d = lpips or judge_distance(trained_judge)
    results: dict[str, MethodResult] = {}
    for name, column in compared.items():
        results[name] = measure_method(
            column.tasks,
            held_out,
            trained_judge,
            d,
            displayed_pairs=displayed_pairs,
            lpips=lpips,
            inception=inception,
            stage=name,
            report=report,
        )
    records = {path: read_record(path) for path in runs.values()}
    times_ms = frame_times({name: column.tasks[0].method for name, column in compared.items()}, held_out)
    for name, column in compared.items():
        results[name].figures["cost"] = cost(
            column.tasks[0].method,
            frame_time=times_ms[name] / times_ms.get("homomorph", math.nan),
            training=_NO_TRAINING if column.run is None else records[column.run],
        )

    meta = {
        "pairs": pairs,
        "pairs_of_methods": {name: result.pairs for name, result in results.items()},
        "data": {"pictures": len(data.paths), "style": provenance.style if provenance else None, "seed": seed},
        "seeds": {"evaluator": 0, "frames": 0, "shift": 0},
        "trained_on": {name: record.machine for name, path in runs.items() if (record := records[path])},
        "weights": {name: sha256(path / MODEL_FILE) for name, path in runs.items()},
        "picture_size": picture_size,
        "evaluator": {
            "judge": judge,
            "accuracy": float(np.nanmean(accuracy.per_label)),
            "accuracy_per_label": _plain(dict(zip(attributes, accuracy.per_label.tolist(), strict=True))),
            "balanced_accuracy": float(np.nanmean(accuracy.balanced)),
            "balanced_accuracy_per_label": _plain(dict(zip(attributes, accuracy.balanced.tolist(), strict=True))),
            "pictures": accuracy.pictures,
            "steps": evaluator_steps if judge == "classifier" else None,
        },
        "d": d.name,
        "frechet_floor": _plain(frechet_floor(held_out, trained_judge, np.arange(pairs))),
        "frechet_drawn": _plain(frechet_drawn(held_out, trained_judge)),
        "frechet_ends": _plain(frechet_ends(held_out, trained_judge)),
        "frechet_floor_of_translations": {
            name: _plain(frechet_floor(held_out, trained_judge, np.concatenate([task.rows for task in column.tasks])))
            for name, column in compared.items()
            if column.tasks[0].method.switches
        },
        "path_frames": PATH_FRAMES,
        "timing": {
            "frames": FRAMES,
            "turns": TURNS,
            "reference": "homomorph",
            "reference_ms": times_ms.get("homomorph"),
        },
        "notes": notes,
        "environment": environment(),
        "seconds": round(time.perf_counter() - began),
    }
    evaluation = Evaluation(results, held_out, examples, meta, notes)
    metrics = {name: _plain(result.figures) for name, result in results.items()} | {"meta": meta}
    for name, text in (
        (METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n"),
        (REPORT_FILE, write_report(results, held_out, meta)),
    ):
        with replacing(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return evaluation


@dataclass(frozen=True)
class _Column:
    """One column of the table."""

    run: Path | None
    """Where its networks come from; None if it needs none."""
    tasks: list[Task]


def _compared(
    runs: dict[str, Path],
    morphs: dict[str, MorphModel],
    translations: dict[str, CycleGAN],
    directions: dict[str, list[Direction]],
    held_out: HeldOut,
) -> dict[str, _Column]:
    """Return the methods to compare, by their names in the table."""
    every = list(dict.fromkeys(direction for found in directions.values() for direction in found))
    compared = {"pixel": _Column(None, [whole_task(PixelBlend(), held_out, every)])}
    for index, (run, model) in enumerate(morphs.items()):
        for name, method in methods_of(model).items():
            compared[_column_name(name, run, index)] = _Column(runs[run], [whole_task(method, held_out, every)])
    for index, (run, cyclegan) in enumerate(translations.items()):
        tasks = translation_tasks(cyclegan, directions[run], held_out)
        compared[_column_name("cyclegan", run, index)] = _Column(runs[run], tasks)
    return compared


def _notes(asked_pairs: int, held_out: HeldOut, no_lpips: str, no_inception: str) -> list[str]:
    """Say what was left out or done otherwise than asked for."""
    notes = []
    if len(held_out.source) < asked_pairs:
        notes.append(
            f"{len(held_out.source)} pairs are measured instead of {asked_pairs}: the set has no more pictures whose "
            "labels are all known and that the judge can spare"
        )
    return notes + [reason for reason in (no_lpips, no_inception) if reason]


def _examples(compared: dict[str, _Column], held_out: HeldOut) -> list[Example]:
    found = {
        direction.name: Example(direction.name, direction.group, int(task.rows[0]))
        for column in compared.values()
        for task in column.tasks
        if task.method.switches
        for direction in task.directions
    }
    group = next(iter(held_out.groups))
    return list(found.values()) or [Example(group, group, 0)]


def _column_name(method: str, run: str, index: int) -> str:
    return f"{method}:{run}" if index else method


def _load(runs: dict[str, Path]) -> tuple[dict[str, MorphModel], dict[str, CycleGAN], int]:
    """Read the runs of either method, and the height and width that all of them take."""
    morphs: dict[str, MorphModel] = {}
    translations: dict[str, CycleGAN] = {}
    for name, path in runs.items():
        if is_cyclegan(path):
            translations[name] = load_cyclegan(path).to(memory_format=torch.channels_last)
        else:
            morphs[name] = load_model(path).to(memory_format=torch.channels_last)
    sizes = {name: model.config.picture_size for name, model in morphs.items()}
    sizes |= {name: cyclegan.config.picture_size for name, cyclegan in translations.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise CheckpointError(f"the runs take pictures of different sizes and cannot be compared on one set: {listed}")
    return morphs, translations, next(iter(sizes.values()))


def _plain(figures: Any) -> Any:
    """JSON knows no NaN: a figure that could not be taken is null."""
    if isinstance(figures, dict):
        return {name: _plain(value) for name, value in figures.items()}
    return None if math.isnan(figures) else figures
