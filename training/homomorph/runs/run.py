"""A run folder on disk: `config.json` (the resolved configuration) and `model.safetensors` (the networks).

Nothing is unpickled: weights are safetensors, configurations are JSON. Weights may be stored in half precision, like
the shipped ones (`homomorph.runs.ship`); loaded networks are always float32.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.config import ModelConfig
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.morph import MorphModel
from homomorph.text_files import read_json
from homomorph_client.errors import OutputError
from homomorph_client.files import open_regular, replacing, write_text
from homomorph_client.version import WEIGHTS

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
_CHECKSUM = "sha256"
"""Metadata key of a safetensors file for the `checksum` of its tensors."""

Model: TypeAlias = MorphModel | CycleGAN
"""Networks with their configuration."""
C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


def resolve_run(name: str | Path) -> Path:
    """Find a run: a folder, or the name of a model that ships with homomorph (`avatars64`, `smiling64`).

    Raises:
        CheckpointError: there is no such folder and no such model.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    shipped = Path(str(resources.files("homomorph"))) / "weights"
    names = sorted(file.parent.name for file in shipped.glob(f"*/{CONFIG_FILE}"))
    if str(name) in names:
        return shipped / str(name)
    ours = f"one of {', '.join(names)}" if names else f"pip install {WEIGHTS} for the shipped models"
    raise CheckpointError(f"no run at {folder}: give a folder written by `homomorph train`, or {ours}")


def save_model(folder: Path, model: Model, *, dtype: torch.dtype = torch.float32) -> None:
    """Write `config.json` and `model.safetensors`, each all or nothing.

    Args:
        folder: the run.
        model: networks with their configuration.
        dtype: number format in the file.
    """
    save_tensors(with_dtype(model.state_dict(), dtype), folder / MODEL_FILE)
    write_text(folder / CONFIG_FILE, json.dumps(model.config.to_dict(), indent=2) + "\n")


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, all or nothing, with the permissions of the umask."""
    with replacing(file) as partial:
        contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
        # `save_file` makes its files readable only by their owner.
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save_file(contiguous, partial, {**(metadata or {}), _CHECKSUM: checksum(contiguous)})
        except SafetensorError as error:  # the system's message
            raise OutputError(f"{file} cannot be written: {error}") from error
        partial.chmod(mode)


def with_dtype(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors with all floating-point numbers in one format."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def load_model(folder: Path) -> MorphModel:
    """Rebuild E, T_i and D of a run, in evaluation mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another configuration.
    """
    return load_config_and_model(folder, ModelConfig.from_dict, MorphModel)


def load_config_and_model(folder: Path, read_config: Callable[[dict[str, Any]], C], build: Callable[[C], M]) -> M:
    """Rebuild the model of a run of either method, in evaluation mode on the CPU.

    Args:
        folder: the run.
        read_config: converts the content of `config.json` into a configuration, or raises ConfigError.
        build: creates the networks from the configuration.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another configuration.
    """
    try:
        config = read_config(read_json(folder / CONFIG_FILE, CheckpointError))
        state, _ = load_tensors(folder / MODEL_FILE)
        # Only shapes: compare a possibly damaged configuration with the weights before allocating memory for it.
        with torch.device("meta"):
            shapes = build(config).state_dict()
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a finished run: {error.filename} is missing") from error
    except CheckpointError:
        raise
    except (ConfigError, OSError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:  # layers of impossible sizes
        raise CheckpointError(f"{folder / CONFIG_FILE} describes no networks: {error}") from error
    if wrong := describe_difference(reference=shapes, found=state):
        raise CheckpointError(f"{folder / MODEL_FILE} belongs to another configuration than {CONFIG_FILE}: {wrong}")
    model = build(config)
    model.load_state_dict(state)  # casts weights that are stored in half precision
    return model.eval().requires_grad_(False)


def load_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file that `save_tensors` wrote.

    Returns:
        Tensors and metadata by their names.

    Raises:
        CheckpointError: the file is damaged: its checksum is wrong, or it has values that are not finite.
        FileNotFoundError: there is no such file.
    """
    try:
        open_regular(file).close()
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a mapping)
            metadata: dict[str, str] = opened.metadata() or {}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    # Files of other programs have no checksum.
    if _CHECKSUM in metadata and metadata[_CHECKSUM] != checksum(tensors):
        raise CheckpointError(f"{file} is damaged: it is not what was written, by its checksum")
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{file} is damaged: {name} holds NaN or infinity")
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_difference(*, reference: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Describe which tensors are missing, unknown or of another shape; None if all names and shapes agree."""
    shapes, others = ({name: tuple(value.shape) for name, value in state.items()} for state in (reference, found))
    wrong = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
    if not wrong:
        return None
    first = wrong[0]
    return (
        f"{len(wrong)} tensors differ, the first is {first} (expected {shapes.get(first)}, found {others.get(first)})"
    )
