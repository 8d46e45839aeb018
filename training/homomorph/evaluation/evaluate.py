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

from homomorph.data.labels import LabelledPictures, read_labelled
from homomorph.data.provenance import read_provenance
from homomorph.environment import environment
from homomorph.errors import CheckpointError, DataError
from homomorph.evaluation.cost import FRAMES, TURNS, cost, frame_times
from homomorph.evaluation.distance import Choice, find_lpips, judge_distance
from homomorph.evaluation.efficientnet import load_efficientnet
from homomorph.evaluation.held_out import HeldOut, read_held_out, seed_of
from homomorph.evaluation.inception import find_inception
from homomorph.evaluation.judge import Accuracy, Judge, JudgeSettings, train_judge
from homomorph.evaluation.measure import measure_method
from homomorph.evaluation.measured_pairs import MeasuredPairs, all_pairs, translated_pairs
from homomorph.evaluation.methods import PixelBlend, methods_of
from homomorph.evaluation.path import PATH_FRAMES
from homomorph.evaluation.references import frechet_drawn, frechet_ends, frechet_floor
from homomorph.evaluation.report import write_report
from homomorph.evaluation.results import MethodResult
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
STRIPS = 6
"""Pairs that the report shows, examples not counted."""

_NO_TRAINING = TrainingRecord(pictures=0, hours=0, machine="")
_REFERENCE = "homomorph"
"""The method whose time for a frame is the unit of the others'."""


@dataclass(frozen=True)
class Example:
    """A pair that shows what sets the methods apart."""

    name: str
    """A direction of a CycleGAN, or a group."""
    group: str
    """The group whose strength changes."""
    pair: int
    """Number of the pair."""


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, and how it was done."""

    results: dict[str, MethodResult]
    """Per method."""
    held_out: HeldOut
    """The pairs that were measured."""
    examples: list[Example]
    """The first pair of each direction of a CycleGAN; without a CycleGAN, the first pair and the first group."""
    meta: dict[str, Any]
    """Pairs, seeds, weights, the judge's accuracy, what d is, references for `frechet`, versions, hardware."""
    notes: list[str]
    """One sentence for each thing that was left out, or done otherwise than asked for."""


def evaluate(
    runs: dict[str, Path],
    folder: Path,
    out: Path,
    *,
    pairs: int,
    judge: JudgeSettings,
    distance: Choice = "auto",
    inception_file: Path | None = None,
    allow_missing: bool = False,
    report: Report = silent,
) -> Evaluation:
    """Compare the methods on pairs that no model was trained on, and write `metrics.json` and `report.html`.

    Args:
        runs: name -> run folder of either kind of network; the methods of each kind's first one have plain names, the
            others' end in `:name`.
        folder: labelled pictures, other ones than those of the training.
        out: folder for the two files; they appear whole or not at all.
        pairs: number of pairs that are wanted; a small folder gives fewer.
        judge: what reads the labels of pictures.
        distance: what measures d.
        inception_file: weights of Inception for `fid`; None looks for them in torch hub's cache.
        allow_missing: whether rows of the tables whose picture is not there are left out.
        report: called for each picture read, each training step of the judge, and each chunk of pairs.

    Raises:
        CheckpointError: a run cannot be loaded, or the runs take pictures of different sizes.
        ConfigError: the distance, the judge or Inception cannot be had.
        DataError: the data cannot be used, or lacks a group or an attribute that a run changes.
        OutputError: the files cannot be written; this is checked before anything is computed.
    """
    began = time.perf_counter()
    # Missing packages, weights and permissions are errors now, not after minutes of work.
    morphs, translations, picture_size = _load(runs)
    records = {name: read_record(path) for name, path in runs.items()}
    data = read_labelled(folder, allow_missing=allow_missing)
    _check_groups(morphs, data.groups, folder)
    directions = {name: directions_of(model.config.directions, data.groups) for name, model in translations.items()}
    judge_data = read_labelled(judge.folder, allow_missing=allow_missing) if judge.folder else None
    if judge.choice == "efficientnet":
        load_efficientnet()
    lpips, no_lpips = find_lpips(distance, picture_size)
    inception, no_inception = find_inception(inception_file)
    check_writable(out / METRICS_FILE)

    # Read the pictures, draw the truths, and train the judge.
    held_out = read_held_out(data, picture_size, pairs, seed_of(folder), report, judge_data=judge_data)
    columns = _columns(records, morphs, translations, directions, held_out)
    notes = _notes(pairs, held_out, no_lpips, no_inception)
    trained_judge, accuracy = train_judge(judge, held_out, report)
    d = lpips or judge_distance(trained_judge)

    # Measure.
    examples = _examples(columns, held_out)
    first_pairs = range(min(STRIPS, len(held_out.source)))
    results = {
        name: measure_method(
            column.measured_pairs,
            held_out,
            trained_judge,
            d,
            displayed_pairs=sorted({*first_pairs, *(example.pair for example in examples)}),
            lpips=lpips,
            inception=inception,
            stage=name,
            report=report,
        )
        for name, column in columns.items()
    }
    reference_ms = _add_costs(results, columns, held_out)

    # Say how it was measured, and write.
    meta = {
        "pairs": len(held_out.source),
        "pairs_of_methods": {name: result.pairs for name, result in results.items()},
        "data": _describe_data(folder, data),
        "seeds": {"evaluator": 0, "frames": 0, "shift": 0},
        "trained_on": {name: record.machine for name, record in records.items() if record},
        "weights": {name: sha256(path / MODEL_FILE) for name, path in runs.items()},
        "picture_size": picture_size,
        "evaluator": _describe_judge(judge, accuracy, held_out),
        "d": d.name,
        **_frechet_references(columns, held_out, trained_judge),
        "path_frames": PATH_FRAMES,
        "timing": {"frames": FRAMES, "turns": TURNS, "reference": _REFERENCE, "reference_ms": reference_ms},
        "notes": notes,
        "environment": environment(),
        "seconds": round(time.perf_counter() - began),
    }
    evaluation = Evaluation(results, held_out, examples, meta, notes)
    _write(evaluation, out)
    return evaluation


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


def _check_groups(morphs: dict[str, MorphModel], groups: dict[str, tuple[str, ...]], folder: Path) -> None:
    for name, model in morphs.items():
        if groups != model.config.groups:
            raise DataError(
                f"{folder} has the groups {', '.join(groups)} with their labels, {name} has "
                f"{', '.join(model.config.groups)} with its own: evaluate on data with its labels"
            )


@dataclass(frozen=True)
class _Column:
    """One column of the table."""

    training: TrainingRecord | None
    """Cost of training its networks; None if it is not known."""
    measured_pairs: list[MeasuredPairs]


def _columns(
    records: dict[str, TrainingRecord | None],
    morphs: dict[str, MorphModel],
    translations: dict[str, CycleGAN],
    directions: dict[str, list[Direction]],
    held_out: HeldOut,
) -> dict[str, _Column]:
    """Return the methods to compare, by their names in the table."""
    every = list(dict.fromkeys(direction for found in directions.values() for direction in found))
    columns = {"pixel": _Column(_NO_TRAINING, [all_pairs(PixelBlend(), held_out, every)])}
    for index, (run, model) in enumerate(morphs.items()):
        for name, method in methods_of(model).items():
            columns[_column_name(name, run, index)] = _Column(records[run], [all_pairs(method, held_out, every)])
    for index, (run, cyclegan) in enumerate(translations.items()):
        measured_pairs = translated_pairs(cyclegan, directions[run], held_out)
        columns[_column_name("cyclegan", run, index)] = _Column(records[run], measured_pairs)
    return columns


def _column_name(method: str, run: str, index: int) -> str:
    return f"{method}:{run}" if index else method


def _notes(asked_pairs: int, held_out: HeldOut, no_lpips: str | None, no_inception: str | None) -> list[str]:
    """Say what was left out or done otherwise than asked for."""
    notes = []
    if len(held_out.source) < asked_pairs:
        notes.append(
            f"{len(held_out.source)} pairs are measured instead of {asked_pairs}: the set has no more pictures whose "
            "labels are all known and that the judge can spare"
        )
    return notes + [reason for reason in (no_lpips, no_inception) if reason is not None]


def _examples(columns: dict[str, _Column], held_out: HeldOut) -> list[Example]:
    found = {
        direction.name: Example(direction.name, direction.group, int(measured.rows[0]))
        for column in columns.values()
        for measured in column.measured_pairs
        if measured.method.switches
        for direction in measured.directions
    }
    group = next(iter(held_out.groups))
    return list(found.values()) or [Example(group, group, 0)]


def _add_costs(results: dict[str, MethodResult], columns: dict[str, _Column], held_out: HeldOut) -> float | None:
    """Add the figure `cost` to each method's; return the milliseconds that a frame of `_REFERENCE` takes."""
    times_ms = frame_times({name: column.measured_pairs[0].method for name, column in columns.items()}, held_out)
    reference_ms = times_ms.get(_REFERENCE)
    for name, column in columns.items():
        frame_time = times_ms[name] / reference_ms if reference_ms else math.nan
        results[name].figures["cost"] = cost(
            column.measured_pairs[0].method, frame_time=frame_time, training=column.training
        )
    return reference_ms


def _describe_data(folder: Path, data: LabelledPictures) -> dict[str, Any]:
    provenance = read_provenance(folder)
    return {
        "pictures": len(data.paths),
        "style": provenance.style if provenance else None,
        "seed": seed_of(folder),
    }


def _describe_judge(settings: JudgeSettings, accuracy: Accuracy, held_out: HeldOut) -> dict[str, Any]:
    attributes = [name for group in held_out.groups.values() for name in group]
    return {
        "judge": settings.choice,
        "accuracy": float(np.nanmean(accuracy.per_label)),
        "accuracy_per_label": _plain(dict(zip(attributes, accuracy.per_label.tolist(), strict=True))),
        "balanced_accuracy": float(np.nanmean(accuracy.balanced)),
        "balanced_accuracy_per_label": _plain(dict(zip(attributes, accuracy.balanced.tolist(), strict=True))),
        "pictures": accuracy.pictures,
        "steps": settings.steps if settings.choice == "classifier" else None,
    }


def _frechet_references(columns: dict[str, _Column], held_out: HeldOut, judge: Judge) -> dict[str, Any]:
    """Return `frechet` of real and of drawn pictures, by the names in `meta`."""
    return {
        "frechet_floor": _plain(frechet_floor(held_out, judge, np.arange(len(held_out.source)))),
        "frechet_drawn": _plain(frechet_drawn(held_out, judge)),
        "frechet_ends": _plain(frechet_ends(held_out, judge)),
        "frechet_floor_of_translations": {
            name: _plain(
                frechet_floor(held_out, judge, np.concatenate([measured.rows for measured in column.measured_pairs]))
            )
            for name, column in columns.items()
            if column.measured_pairs[0].method.switches
        },
    }


def _write(evaluation: Evaluation, out: Path) -> None:
    figures = {name: _plain(result.figures) for name, result in evaluation.results.items()}
    metrics = json.dumps(figures | {"meta": evaluation.meta}, indent=2, allow_nan=False) + "\n"
    page = write_report(evaluation.results, evaluation.held_out, evaluation.meta)
    # Both are written before either replaces an older file: figures and report are of one evaluation.
    with replacing(out / METRICS_FILE) as metrics_file, replacing(out / REPORT_FILE) as report_file:
        metrics_file.write_text(metrics, encoding="utf-8")
        report_file.write_text(page, encoding="utf-8")


def _plain(figures: Any) -> Any:
    """Return figures as JSON can hold them: null in place of NaN, where a figure could not be taken."""
    if isinstance(figures, dict):
        return {name: _plain(value) for name, value in figures.items()}
    return None if math.isnan(figures) else figures
