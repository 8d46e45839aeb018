"""`label_features.safetensors` of a run, which editing by labels needs in addition to the model."""

from __future__ import annotations

from pathlib import Path

import torch

from homomorph.errors import CheckpointError
from homomorph.models.config import ModelConfig
from homomorph.models.label_features import LabelFeatures
from homomorph.runs.run import load_tensors, save_tensors, with_dtype

LABEL_FEATURES_FILE = "label_features.safetensors"


def save_label_features(folder: Path, fitted: LabelFeatures, *, dtype: torch.dtype = torch.float32) -> None:
    """Write `label_features.safetensors` into a run, all or nothing, with numbers as `dtype`."""
    save_tensors(with_dtype(fitted.state_dict(), dtype), folder / LABEL_FEATURES_FILE)


def load_label_features(folder: Path, config: ModelConfig) -> LabelFeatures | None:
    """Read a run's label features; None if it has none (imported runs have none).

    Raises:
        CheckpointError: the file is damaged or belongs to another configuration.
    """
    path = folder / LABEL_FEATURES_FILE
    if not path.is_file():
        return None
    fitted = LabelFeatures(config)
    try:
        fitted.load_state_dict(load_tensors(path)[0])
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not belong to this run: {error}") from error
    return fitted
