"""A run folder on disk: `config.json` (the resolved configuration) and `model.safetensors` (the networks).

Nothing here unpickles: weights are safetensors, configurations are JSON. Weights may be stored in half precision, as
those that ship are (`homomorph.runs.ship`); networks that are loaded are always float32.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph_client.errors import OutputError
from homomorph_client.files import replacing, write_text

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


def resolve_run(name: str | Path) -> Path:
    """Find a run: a folder, or the name of a model that ships with homomorph (`avatars64`, `smiling64`).

    Raises:
        CheckpointError: there is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    shipped = Path(str(resources.files("homomorph"))) / "weights"
    names = sorted(path.name for path in shipped.iterdir() if path.is_dir()) if shipped.is_dir() else []
    if str(name) in names:
        return shipped / str(name)
    raise CheckpointError(
        f"no run at {folder}: give a folder written by `homomorph train`, or one of {', '.join(names)}"
    )


class Config(Protocol):
    """What a run's `config.json` holds."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        ...


class Model(Protocol):
    """Networks and what defines them: `MorphModel`, or `CycleGAN`."""

    @property
    def config(self) -> Config:
        """What the networks can be rebuilt from."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        ...


def save_model(folder: Path, model: Model, *, dtype: torch.dtype = torch.float32) -> None:
    """Write `config.json` and `model.safetensors`; each appears whole or not at all.

    Args:
        folder: the run.
        model: networks with their configuration.
        dtype: number format in the file.
    """
    save_tensors(converted(model.state_dict(), dtype), folder / MODEL_FILE)
    write_text(folder / CONFIG_FILE, json.dumps(model.config.to_dict(), indent=2) + "\n")


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, readable as the umask says; it appears whole or not at all."""
    with replacing(file) as partial:
        # `save_file` gives its files to their owner alone.
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial, metadata)
        except SafetensorError as error:  # the words of the system, without its number
            raise OutputError(f"{file} cannot be written: {error}") from error
        partial.chmod(mode)


def converted(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors with all floating-point numbers in one format."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def load_model(folder: Path) -> MorphModel:
    """Rebuild E, T_i and D of a run, in evaluation mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another configuration.
    """
    return load(folder, ModelConfig.from_dict, MorphModel)


def load(folder: Path, read_config: Callable[[dict[str, Any]], C], build: Callable[[C], M]) -> M:
    """Rebuild the model of a run of either method, in evaluation mode on the CPU.

    Args:
        folder: the run.
        read_config: makes a configuration of what `config.json` holds, and raises ConfigError where it cannot.
        build: makes the networks.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another configuration.
    """
    try:
        config = read_config(json.loads((folder / CONFIG_FILE).read_text()))
        state = load_file(folder / MODEL_FILE)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a finished run: {error.filename} is missing") from error
    except (ValueError, ConfigError, SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    model = build(config)
    if wrong := difference(expected=model.state_dict(), found=state):
        raise CheckpointError(f"{folder / MODEL_FILE} belongs to another configuration than {CONFIG_FILE}: {wrong}")
    model.load_state_dict(state)  # casts what is stored in half precision
    return model.eval().requires_grad_(False)


def difference(*, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Say which tensors are missing, unknown or of another shape; nothing if all names and shapes agree."""
    shapes, others = ({name: tuple(value.shape) for name, value in state.items()} for state in (expected, found))
    wrong = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
    if not wrong:
        return ""
    first = wrong[0]
    return (
        f"{len(wrong)} tensors differ, the first is {first} (expected {shapes.get(first)}, found {others.get(first)})"
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
