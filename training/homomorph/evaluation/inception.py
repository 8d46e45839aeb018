"""`fid`, the Frechet distance in Inception's features, as torchmetrics and torch-fidelity compute it."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.image.fid import FrechetInceptionDistance

from homomorph.errors import ConfigError
from homomorph.evaluation.cached_weights import cached_weights, from_home

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""Where the weights that all papers use come from; nothing is downloaded."""
FEATURES = 2048
_CHUNK = 32


class InceptionDistance:
    """Collects frames and real pictures, and compares them."""

    def __init__(self, weights: Path) -> None:
        self._metric = FrechetInceptionDistance(feature=FEATURES, feature_extractor_weights_path=str(weights))

    def add(self, frames: NDArray[np.uint8], real: NDArray[np.uint8]) -> None:
        """Add frames and real pictures, uint8 [N, 3, H, W] and [M, 3, H, W]."""
        for pictures, is_real in ((frames, False), (real, True)):
            for chunk in torch.from_numpy(pictures).split(_CHUNK):
                self._metric.update(chunk, real=is_real)

    def distance(self) -> float:
        """Compare what was added, and forget it."""
        distance = float(self._metric.compute())
        self._metric.reset()
        return distance


def find_inception(weights: Path | None) -> tuple[InceptionDistance | None, str | None]:
    """Load Inception if its weights are on this machine.

    Args:
        weights: file of its weights; None: look in torch hub's cache, where torch-fidelity puts them.

    Returns:
        Inception and None; or None, and the reason why `fid` is left out.

    Raises:
        ConfigError: the file was given and cannot be used, or the cached one is damaged.
    """
    file = weights or cached_weights(WEIGHTS_URL)
    if not file.is_file():
        missing = f"there is no file {from_home(file)}"
        if weights is not None:
            raise ConfigError(f"--inception cannot be used: {missing}")
        return None, f"fid is left out: {missing}, from {WEIGHTS_URL}"
    if importlib.util.find_spec("torch_fidelity") is None:
        if weights is not None:
            raise ConfigError("--inception needs the package torch-fidelity: pip install torch-fidelity")
        return None, "fid is left out: the package torch-fidelity is not installed"
    try:
        # torch-fidelity would unpickle anything; this refuses files that hold more than weights.
        torch.load(file, map_location="cpu", weights_only=True)
        return InceptionDistance(file), None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigError(f"{file} is damaged, or not torch-fidelity's Inception: get it from {WEIGHTS_URL}") from error
