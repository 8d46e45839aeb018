"""The cost of a training, in `training.json` beside its model; it remains when the training state is deleted."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from homomorph.environment import environment
from homomorph.errors import CheckpointError
from homomorph.text_files import read_json
from homomorph_client.files import write_text

TRAINING_FILE = "training.json"
METRICS_FILE = "metrics.json"
"""Figures of the run, where `homomorph evaluate RUN --out RUN` was asked to write them there."""


@dataclass(frozen=True)
class TrainingRecord:
    """The cost of a training so far, without that of the run it started from (`--init`)."""

    pictures: int
    """Number of pictures in all batches so far; a picture counts each time it is drawn."""
    hours: float
    """Time of its steps, in hours."""
    machine: str
    """Machine of the last session."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The resolved configuration: networks, recipe, batch, rates, steps, seed."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of homomorph, Python and torch in the last session."""
    data: str | None = None
    """SHA-256 of the names, sizes and labels of the pictures; None if it is not known."""


def machine(device: torch.device, processes: int = 1) -> str:
    """Return the name of the GPU, or of the CPU with the number of threads of all processes of the training."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = environment()
    threads = processes * found["threads"]
    return f"{found['cpu']}, {threads} thread{'s' if threads > 1 else ''}"


def write_record(run: Path, record: TrainingRecord) -> None:
    """Write the record of a run, all or nothing."""
    write_text(run / TRAINING_FILE, json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def read_record(run: Path) -> TrainingRecord | None:
    """Read the record of a run; None if it has none (imported runs have none).

    Raises:
        CheckpointError: the record is damaged.
    """
    file = run / TRAINING_FILE
    try:
        return TrainingRecord(**read_json(file, CheckpointError))
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
