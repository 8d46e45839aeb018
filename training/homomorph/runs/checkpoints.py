"""Reads weights that other programs have written, and makes runs of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from homomorph.errors import CheckpointError
from homomorph.runs.run import Model, difference, save_model
from homomorph_client.files import replacing

_BATCH_COUNT = "num_batches_tracked"
"""A count of BatchNorm's that evaluation does not use, and that files of old versions of torch lack."""


def check_empty(out: Path) -> None:
    """Check that a run can be written to a folder.

    Raises:
        CheckpointError: it holds something already, or is no folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} already holds something: give a new folder")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without the `module.` that torch's DataParallel puts before every key.

    Nothing is unpickled but tensors.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how a file is pickled, which its owner cannot change
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a damaged file can fail in any of the ways that an unpickler can
        raise CheckpointError(f"{path} is not a torch file of weights, or more is in it than weights") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"{path} holds no state dict: expected are tensors by name, and nothing else")
    return {key.removeprefix("module."): value for key, value in content.items()}


def fitted(expected: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's weights as a network's state, in the network's number format.

    Args:
        expected: the network's tensors by the checkpoint's names.
        weights: what the checkpoint holds.
        path: the checkpoint, for messages.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape, or its values are not finite numbers.
    """
    counts = {key: torch.zeros_like(expected[key], device="cpu") for key in expected if key.endswith(_BATCH_COUNT)}
    weights = {key: value for key, value in weights.items() if not key.endswith(_BATCH_COUNT)} | counts
    if wrong := difference(expected=expected, found=weights):
        raise CheckpointError(f"{path} does not fit the published network: {wrong}")
    for key, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {key} holds NaN or infinity")
    return {key: weights[key].to(tensor.dtype, copy=True) for key, tensor in expected.items()}


def write_run(model: Model, out: Path) -> None:
    """Write a run; it appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(out.resolve()) as partial:
        save_model(partial, model)
