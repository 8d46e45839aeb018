"""`homomorph evaluate`: every figure for every system, into one table, `metrics.json` and `report.html`."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from homomorph.data import avatars
from homomorph.data.labels import read_labelled
from homomorph.data.provenance import read_provenance
from homomorph.environment import environment
from homomorph.errors import CheckpointError, DataError
from homomorph.evaluation.cost import FRAMES, TURNS, cost, frame_times
from homomorph.evaluation.distance import Choice, evaluator_distance, find_lpips
from homomorph.evaluation.evaluator import Evaluator, train_evaluator
from homomorph.evaluation.held_out import HeldOut, read_held_out
from homomorph.evaluation.measure import PATH_FRAMES, Measured, frechet_drawn, frechet_ends, frechet_floor, measure
from homomorph.evaluation.report import write_report
from homomorph.evaluation.systems import Pixel, systems_of
from homomorph.evaluation.tasks import Task, translation_tasks, whole_task
from homomorph.evaluation.translation import Direction, directions_of
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.morph import MorphModel
from homomorph.progress import Progress, Report, silent
from homomorph.runs.cyclegan import is_cyclegan, load_cyclegan
from homomorph.runs.record import TrainingRecord, read_record
from homomorph.runs.run import MODEL_FILE, load_model, sha256

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"

_NO_TRAINING = TrainingRecord(pictures=0, hours=0, machine="")
STRIPS = 6
"""Pairs that the report shows, examples not counted."""


@dataclass(frozen=True)
class Example:
    """A pair that shows what sets the systems apart."""

    name: str
    """A way that a CycleGAN goes; without one, the group."""
    group: str
    """What is moved."""
    pair: int
    """Number of the pair."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    measured: dict[str, Measured]
    """Per system."""
    held_out: HeldOut
    """What it was measured on."""
    examples: list[Example]
    """Of each way that a CycleGAN goes the first pair; without one, the first pair and group."""
    meta: dict[str, Any]
    """Pairs, seeds, weights, the evaluator's accuracy, what d is, the noise floor of `frechet`, versions, hardware."""


def evaluate(
    runs: dict[str, Path],
    folder: Path,
    out: Path,
    *,
    pairs: int,
    evaluator_steps: int,
    report: Report = silent,
    distance: Choice = "auto",
) -> Evaluation:
    """Compare the systems on pairs that no model was trained on, and write `metrics.json` and `report.html`.

    Args:
        runs: name -> run folder of either method; the systems of each method's first one have plain names, the
            others' end in `:name`.
        folder: labelled pictures, other ones than those of the training.
        out: folder for the two files; they appear whole or not at all.
        pairs: number of pairs.
        evaluator_steps: steps that train the evaluator.
        report: called for each picture read, each training step of the evaluator, and each chunk of pairs.
        distance: what measures d.

    Raises:
        CheckpointError: a run cannot be loaded, or the runs take pictures of different sizes.
        ConfigError: the distance cannot be had.
        DataError: the data cannot be used, or lacks a group or an attribute that a run changes.
    """
    began = time.perf_counter()
    morphs, translations, picture_size = _load(runs)
    data = read_labelled(folder)
    attributes = [name for group in data.groups.values() for name in group]
    for name, model in morphs.items():
        if data.groups != model.config.groups:
            raise DataError(
                f"{folder} has the groups {', '.join(data.groups)} with their labels, {name} has "
                f"{', '.join(model.config.groups)} with its own: evaluate on data with its labels"
            )
    directions = {name: directions_of(model.config.directions, data.groups) for name, model in translations.items()}
    # What cannot be had or written is said now, not after minutes of work.
    lpips = find_lpips(distance, picture_size)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be a folder for the report: {error}") from error

    # Read the pictures, and draw the truths.
    provenance = read_provenance(folder)
    built_in = provenance is not None and provenance.style == avatars.STYLE
    seed = provenance.seed if provenance is not None and built_in else None
    held_out = read_held_out(data, picture_size, pairs, seed, report)
    compared = _compared(runs, morphs, translations, directions, held_out)

    # Train the evaluator; a tenth of its pictures tells how good it is.
    torch.manual_seed(0)
    evaluator = Evaluator(len(attributes))
    kept = len(held_out.pictures) // 10
    training = train_evaluator(
        evaluator, held_out.pictures[kept:], held_out.labels[kept:], steps=evaluator_steps, seed=0
    )
    for step, _ in enumerate(training, start=1):
        report(Progress("evaluator", step, evaluator_steps))
    read = evaluator.judge(held_out.pictures[:kept])[0] > 0.5
    accuracy = (read == held_out.labels[:kept]).mean(axis=0)

    # Measure.
    examples = _examples(compared, held_out)
    shown = sorted({*range(min(STRIPS, pairs)), *(example.pair for example in examples)})
    d = lpips or evaluator_distance(evaluator)
    measured: dict[str, Measured] = {}
    for name, one in compared.items():
        measured[name] = measure(one.tasks, held_out, evaluator, d, shown=shown, stage=name, report=report)
    records = {path: read_record(path) for path in runs.values()}
    times_ms = frame_times({name: one.tasks[0].system for name, one in compared.items()}, held_out)
    for name, one in compared.items():
        measured[name].figures["cost"] = cost(
            one.tasks[0].system,
            frame_time=times_ms[name] / times_ms.get("homomorph", math.nan),
            training=_NO_TRAINING if one.run is None else records[one.run],
        )

    meta = {
        "pairs": pairs,
        "pairs_of_systems": {name: taken.pairs for name, taken in measured.items()},
        "data": {"pictures": len(data.paths), "style": provenance.style if provenance else None, "seed": seed},
        "seeds": {"evaluator": 0, "frames": 0, "shift": 0},
        "trained_on": {name: record.machine for name, path in runs.items() if (record := records[path])},
        "weights": {name: sha256(path / MODEL_FILE) for name, path in runs.items()},
        "picture_size": picture_size,
        "evaluator": {
            "accuracy": float(accuracy.mean()),
            "accuracy_per_label": dict(zip(attributes, accuracy.tolist(), strict=True)),
            "pictures": len(held_out.pictures) - kept,
            "steps": evaluator_steps,
        },
        "d": d.name,
        "frechet_floor": _plain(frechet_floor(held_out, evaluator, np.arange(pairs))),
        "frechet_drawn": _plain(frechet_drawn(held_out, evaluator)),
        "frechet_ends": _plain(frechet_ends(held_out, evaluator)),
        "frechet_floor_of_translations": {
            name: _plain(frechet_floor(held_out, evaluator, np.concatenate([task.rows for task in one.tasks])))
            for name, one in compared.items()
            if one.tasks[0].system.switches
        },
        "path_frames": PATH_FRAMES,
        "timing": {
            "frames": FRAMES,
            "turns": TURNS,
            "reference": "homomorph",
            "reference_ms": times_ms.get("homomorph"),
        },
        "environment": environment(),
        "seconds": round(time.perf_counter() - began),
    }
    evaluation = Evaluation(measured, held_out, examples, meta)
    metrics = {name: _plain(taken.figures) for name, taken in measured.items()} | {"meta": meta}
    _write(out / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    _write(out / REPORT_FILE, write_report(measured, held_out, meta))
    return evaluation


@dataclass(frozen=True)
class _Compared:
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
) -> dict[str, _Compared]:
    """Return what is compared, by the names in the table."""
    every = list(dict.fromkeys(direction for found in directions.values() for direction in found))
    compared = {"pixel": _Compared(None, [whole_task(Pixel(), held_out, every)])}
    for index, (run, model) in enumerate(morphs.items()):
        for name, system in systems_of(model).items():
            compared[_column(name, run, index)] = _Compared(runs[run], [whole_task(system, held_out, every)])
    for index, (run, cyclegan) in enumerate(translations.items()):
        tasks = translation_tasks(cyclegan, directions[run], held_out)
        compared[_column("cyclegan", run, index)] = _Compared(runs[run], tasks)
    return compared


def _examples(compared: dict[str, _Compared], held_out: HeldOut) -> list[Example]:
    found = {
        direction.name: Example(direction.name, direction.group, int(task.rows[0]))
        for one in compared.values()
        for task in one.tasks
        if task.system.switches
        for direction in task.directions
    }
    group = next(iter(held_out.groups))
    return list(found.values()) or [Example(group, group, 0)]


def _column(system: str, run: str, index: int) -> str:
    return f"{system}:{run}" if index else system


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


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
