"""`homomorph evaluate`: every figure for every system, into one table, `metrics.json` and `report.html`."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from homomorph.data import avatars
from homomorph.data.labels import read_labelled
from homomorph.data.provenance import read_provenance
from homomorph.environment import environment
from homomorph.errors import CheckpointError, DataError
from homomorph.evaluation.distance import Choice, evaluator_distance, find_lpips
from homomorph.evaluation.evaluator import Evaluator, train_evaluator
from homomorph.evaluation.held_out import HeldOut, read_held_out
from homomorph.evaluation.measure import PATH_FRAMES, Measured, frechet_floor, measure
from homomorph.evaluation.report import write_report
from homomorph.evaluation.systems import Pixel, System, systems_of
from homomorph.networks import MorphModel
from homomorph.run import MODEL_FILE, load_model, sha256

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"

STRIPS = 6
"""Pairs that the report shows."""


Report = Callable[[str, int, int], None]
"""Takes the name of what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    measured: dict[str, Measured]
    """Per system."""
    held_out: HeldOut
    """What it was measured on."""
    meta: dict[str, Any]
    """Pairs, seeds, weights, the evaluator's accuracy, what d is, the noise floor of `frechet`, versions, hardware."""


def evaluate(
    runs: dict[str, Path],
    folder: Path,
    out: Path,
    *,
    pairs: int,
    evaluator_steps: int,
    report: Report,
    distance: Choice = "auto",
) -> Evaluation:
    """Compare the systems on pairs that no model was trained on, and write `metrics.json` and `report.html`.

    Args:
        runs: name -> run folder; the first one's systems have plain names, the others' end in `:name`.
        folder: labelled pictures, other ones than those of the training.
        out: folder for the two files; they appear whole or not at all.
        pairs: number of pairs.
        evaluator_steps: steps that train the evaluator.
        report: is told how far the work is.
        distance: what measures d.

    Raises:
        CheckpointError: a run cannot be loaded, or takes other pictures or groups than the first one.
        ConfigError: the distance cannot be had.
        DataError: the data cannot be used.
    """
    began = time.perf_counter()
    models = _load(runs)
    first = next(iter(models.values()))
    data = read_labelled(folder)
    if data.groups != first.config.groups:
        raise DataError(
            f"{folder} has the groups {', '.join(data.groups)} with their labels, the model has "
            f"{', '.join(first.config.groups)} with its own: evaluate on data with the labels that it was trained on"
        )
    # What cannot be had or written is said now, not after minutes of work.
    lpips = find_lpips(distance, first.config.picture_size)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be a folder for the report: {error}") from error

    # Read the pictures, and draw the truths.
    provenance = read_provenance(folder)
    built_in = provenance is not None and provenance.style == avatars.STYLE
    seed = provenance.seed if provenance is not None and built_in else None
    held_out = read_held_out(data, first.config.picture_size, pairs, seed, functools.partial(report, "pictures"))

    # Train the evaluator; a tenth of its pictures tells how good it is.
    torch.manual_seed(0)
    evaluator = Evaluator(len(first.config.attributes))
    kept = len(held_out.pictures) // 10
    training = train_evaluator(
        evaluator, held_out.pictures[kept:], held_out.labels[kept:], steps=evaluator_steps, seed=0
    )
    for step, _ in enumerate(training, start=1):
        report("evaluator", step, evaluator_steps)
    read = evaluator.judge(held_out.pictures[:kept])[0] > 0.5
    accuracy = (read == held_out.labels[:kept]).mean(axis=0)

    # Measure.
    d = lpips or evaluator_distance(evaluator)
    systems: list[System] = [Pixel()]
    for index, (name, model) in enumerate(models.items()):
        systems += systems_of(model, f":{name}" if index else "")
    measured = {
        system.name: measure(
            system,
            held_out,
            evaluator,
            d,
            strips=min(STRIPS, pairs),
            report=lambda done, name=system.name: report(name, done, pairs),  # type: ignore[misc]
        )
        for system in systems
    }

    meta = {
        "pairs": pairs,
        "data": {"pictures": len(data.paths), "style": provenance.style if provenance else None, "seed": seed},
        "seeds": {"evaluator": 0, "frames": 0, "shift": 0},
        "weights": {name: sha256(path / MODEL_FILE) for name, path in runs.items()},
        "picture_size": first.config.picture_size,
        "evaluator": {
            "accuracy": float(accuracy.mean()),
            "accuracy_per_label": dict(zip(first.config.attributes, accuracy.tolist(), strict=True)),
            "pictures": len(held_out.pictures) - kept,
            "steps": evaluator_steps,
        },
        "d": d.name,
        "frechet_floor": _plain(frechet_floor(held_out, evaluator)),
        "path_frames": PATH_FRAMES,
        "environment": environment(),
        "seconds": round(time.perf_counter() - began),
    }
    evaluation = Evaluation(measured, held_out, meta)
    metrics = {name: _plain(taken.figures) for name, taken in measured.items()} | {"meta": meta}
    _write(out / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    _write(out / REPORT_FILE, write_report(measured, held_out, meta))
    return evaluation


def _load(runs: dict[str, Path]) -> dict[str, MorphModel]:
    models = {name: load_model(path).to(memory_format=torch.channels_last) for name, path in runs.items()}
    (first_name, first), *others = models.items()
    for name, model in others:
        for field in ("groups", "picture_size"):
            if getattr(model.config, field) != getattr(first.config, field):
                raise CheckpointError(f"{name} has other {field} than {first_name}: they cannot be compared on one set")
    return models


def _plain(figures: Any) -> Any:
    """JSON knows no NaN: a figure that could not be taken is null."""
    if isinstance(figures, dict):
        return {name: _plain(value) for name, value in figures.items()}
    return None if math.isnan(figures) else figures


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
