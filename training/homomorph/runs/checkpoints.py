"""Read weights that other programs have written, and write them as runs."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from homomorph.errors import CheckpointError
from homomorph.runs.run import Model, describe_difference, save_model
from homomorph_client.files import replacing

_BATCH_COUNT = "num_batches_tracked"
"""A counter of BatchNorm. Evaluation does not use it, and files of old versions of torch lack it."""


def check_empty(out: Path) -> None:
    """Check that a run can be written to a folder.

    Raises:
        CheckpointError: the folder is not empty, or is no folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} already holds something: give a new folder")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, which may be nested in the dict of a training program.

    Only tensors, numbers and text are unpickled. The prefixes `module.` and `_orig_mod.` of torch's wrappers are
    removed from names. Nested dicts are searched under the usual keys (`state_dict` and so on). If a file has several
    networks, the names of their tensors keep the network's name, as in `netG_A.model.1.weight`.

    Raises:
        CheckpointError: the file cannot be read, or has no state dict; the message describes its content.
    """
    content = _read(path)
    weights = _state_dict(content)
    if weights is None:
        raise CheckpointError(
            f"{path} holds no state dict: expected are tensors by name, found is {_described(content)}"
        )
    plain = {_WRAPPERS.sub("", key): value for key, value in weights.items()}
    if len(plain) < len(weights):
        raise CheckpointError(f"{path} has tensors twice, with and without 'module.' or '_orig_mod.' in their names")
    for key, value in plain.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.dtype == torch.bool:
            raise CheckpointError(f"{path}: {key[:200]} is {_kind_of(value)}; expected are ordinary tensors of numbers")
    return plain


_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")
"""Prefixes that DataParallel and torch.compile add to names, at any depth and possibly several times."""
_USUAL_NAMES = (
    "state_dict",
    "model_state_dict",
    "params_ema",
    "params",
    "model",
    "generator",
    "netG",
    "net",
    "weights",
)
"""Keys under which programs store a state dict."""
_HARMLESS = (argparse.Namespace, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath)
"""Further classes in checkpoints that are safe to unpickle."""


def _read(path: Path) -> object:
    """Read a file of torch or safetensors; only tensors and `_HARMLESS` classes are unpickled."""
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no regular file")
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        raise CheckpointError(f"{path} is a web page, not weights: the download went to a page instead of the file")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not weights: run `git lfs pull` where it comes from")
    if not head:
        raise CheckpointError(f"{path} is empty")
    try:
        if head[8:9] == b"{":  # behind the length of its header: safetensors, whatever the file's ending is
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals([*_HARMLESS]):
            warnings.simplefilter("ignore")  # about the file's pickle format, which the user cannot change
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported (?:global|class|operand)[^\n]*?([\w.]+\.[\w.]+)", str(error))
        what = f": {found[1]}" if found else ""
        raise CheckpointError(
            f"{path} is not a torch file of weights, or more is in it than weights{what}; save the state_dict() alone"
        ) from error
    except Exception as error:  # a damaged file can raise almost any error
        raise CheckpointError(f"{path} is not a torch file of weights, or is damaged") from error


def _state_dict(content: object, depth: int = 0) -> dict[str, Tensor] | None:
    """Find the tensors by name in a file's content; with several networks, prefix their names with the network's."""
    if not isinstance(content, Mapping) or depth > 3:
        return None
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if any(value.dim() for value in tensors.values()):  # else they are numbers beside the weights, such as a loss
        return tensors
    for name in _USUAL_NAMES:
        if (found := _state_dict(content.get(name), depth + 1)) is not None:
            return found
    below = {
        key: found
        for key, value in content.items()
        if isinstance(key, str) and "optim" not in key and (found := _state_dict(value, depth + 1)) is not None
    }
    if not below:
        return tensors or None
    return {f"{name}.{key}": value for name, found in below.items() for key, value in found.items()}


def _described(content: object) -> str:
    if isinstance(content, Mapping):
        names = ", ".join(f"{str(key)[:40]} ({type(value).__name__})" for key, value in [*content.items()][:8])
        return f"a dict of {names or 'nothing'}"
    return f"a {type(content).__name__}"


def _kind_of(value: Tensor) -> str:
    kind = "quantised" if value.is_quantized else str(value.layout).removeprefix("torch.").replace("_", " ")
    return f"{kind} {str(value.dtype).removeprefix('torch.')}"


def check_and_convert(reference: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Check a checkpoint's weights against a network, and convert them to the network's number format.

    Args:
        reference: the network's tensors by the checkpoint's names.
        weights: the checkpoint's tensors.
        path: the checkpoint, for messages.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape, or its values are not finite numbers.
    """
    counts = {key: torch.zeros_like(reference[key], device="cpu") for key in reference if key.endswith(_BATCH_COUNT)}
    weights = {key: value for key, value in weights.items() if not key.endswith(_BATCH_COUNT)} | counts
    if wrong := describe_difference(reference=reference, found=weights):
        raise CheckpointError(f"{path} does not fit the published network: {wrong}")
    for key, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {key} holds NaN or infinity")
    return {key: weights[key].to(tensor.dtype, copy=True) for key, tensor in reference.items()}


def write_run(model: Model, out: Path, pictures: Mapping[str, NDArray[np.uint8]] | None = None) -> None:
    """Write a run, all or nothing.

    Args:
        model: networks with their configuration.
        out: new or empty folder.
        pictures: uint8 [H, W, 3] to write into the run too, by file name.

    Raises:
        OutputError: the run cannot be written.
    """
    with replacing(out.resolve()) as partial:
        save_model(partial, model)
        for name, picture in (pictures or {}).items():
            Image.fromarray(picture).save(partial / name)
