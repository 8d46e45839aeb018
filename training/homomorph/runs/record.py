"""What a training took, in `training.json` beside the model that it made; it stays when the training state goes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from homomorph.environment import environment
from homomorph.errors import CheckpointError
from homomorph_client.files import write_text

TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class TrainingRecord:
    """The cost of a training so far; that of a run which it began from (`--init`) is not in it."""

    pictures: int
    """Pictures that its steps took, each as often as it came."""
    hours: float
    """Time that its steps took."""
    machine: str
    """What it ran on last."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The resolved configuration: networks, recipe, batch, rates, steps, seed."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of homomorph, Python and torch that it ran with last."""
    data: str = ""
    """SHA-256 of the names, sizes and labels of the pictures."""


def machine(device: torch.device) -> str:
    """Name what a training runs on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = environment()
    return f"{found['cpu']}, {found['threads']} threads"


def write_record(run: Path, record: TrainingRecord) -> None:
    """Write the record of a run; it appears whole or not at all."""
    write_text(run / TRAINING_FILE, json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def read_record(run: Path) -> TrainingRecord | None:
    """Read the record of a run; None if it has none, as one that was imported.

    Raises:
        CheckpointError: it is damaged.
    """
    file = run / TRAINING_FILE
    try:
        return TrainingRecord(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
