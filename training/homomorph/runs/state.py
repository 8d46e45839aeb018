"""The state of an unfinished training: all networks, all optimizers, and the number of steps done.

The state is stored beside the model in the run folder and is needed only for `--resume`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from homomorph.errors import CheckpointError
from homomorph.runs.record import TRAINING_FILE
from homomorph.runs.run import CONFIG_FILE, MODEL_FILE, load_tensors, save_tensors
from homomorph_client.files import remove, remove_leftovers, writing

STATE_FILE = "training.safetensors"
LOGS_FOLDER = "tensorboard"
"""Curves of a training, written from its first step on."""


def begin(out: Path) -> None:
    """Create a run folder, and remove the logs of a training that ended before its first checkpoint.

    Raises:
        CheckpointError: the folder holds anything else.
        OutputError: the folder cannot be created.
    """
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file: give a new folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for file in (MODEL_FILE, CONFIG_FILE, STATE_FILE, TRAINING_FILE):
            remove_leftovers(out / file)
        if any(file.name != LOGS_FOLDER for file in out.iterdir()):
            raise CheckpointError(f"{out} already holds something: give a new folder, or go on with --resume")
        remove(out / LOGS_FOLDER)


def save_state(
    out: Path,
    networks: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    step: int,
    settings: dict[str, Any],
) -> None:
    """Write everything that the next step needs, all or nothing."""
    tensors = {f"networks.{name}": value for name, value in networks.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizers.{name}.{index}.{key}": value for key, value in moments.items()}
    metadata = {"step": str(step), "settings": json.dumps(settings, sort_keys=True)}
    save_tensors(tensors, out / STATE_FILE, metadata)


def load_state(
    out: Path, networks: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], settings: dict[str, Any]
) -> int:
    """Read the state back into networks and optimizers.

    Returns:
        The number of steps done.

    Raises:
        CheckpointError: there is no state, it is damaged, or it was trained with other settings.
    """
    tensors, metadata = _read(out / STATE_FILE)
    try:
        earlier, done = json.loads(metadata["settings"]), int(metadata["step"])
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{out / STATE_FILE} is damaged: it does not say how it was trained") from error
    current = json.loads(json.dumps(settings))
    if changed := sorted(key for key in current.keys() | earlier.keys() if current.get(key) != earlier.get(key)):
        raise CheckpointError(
            f"{out} was trained with another {', '.join(changed)}: resume with the same options, or start a new run"
        )
    networks.load_state_dict(_below(tensors, "networks."))
    for name, optimizer in optimizers.items():
        parameters = optimizer.param_groups[0]["params"]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, f"optimizers.{name}.").items():
            index, _, kind = key.partition(".")
            parameter = parameters[int(index)]
            # The fused optimizer step needs moments with the same memory layout as their parameter.
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter).copy_(value)
            moments.setdefault(int(index), {})[kind] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return done


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a training state: its tensors and its metadata."""
    try:
        return load_tensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"nothing to resume: there is no {path}") from error


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
