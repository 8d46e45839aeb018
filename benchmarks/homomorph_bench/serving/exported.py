"""The exported TorchScript without a server: the baseline, and the model that the peers serve."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from homomorph_bench.runtimes import MODELS
from homomorph_client.errors import ServerError
from homomorph_export import torchscript
from homomorph_export.ops import library
from homomorph_export.repository import TORCHSCRIPT_FILE

_WARM_UP_CALLS = 5
"""TorchScript specialises its graph during the first calls."""


class ExportedMorph:
    """Two pictures and strengths in, frames out, both in main memory, through the files that Triton serves."""

    def __init__(self, repository: Path, device: str = "cpu") -> None:
        """Load the three models of a morph.

        Args:
            repository: folder that `homomorph export` wrote.
            device: `cpu`, or a CUDA device.

        Raises:
            ServerError: the repository lacks one of them.
            OperatorError: the repository's library of the operator does not load.
        """
        files = {name: repository / name / TORCHSCRIPT_FILE for name in MODELS}
        for file in files.values():
            if not file.is_file():
                raise ServerError(f"the model repository {repository} has no {file.relative_to(repository)}")
        for operator in sorted(repository.resolve().glob("*/1/*.so"))[:1]:  # all are copies of one library
            library.load_library(operator)
        self._device = torch.device(device)
        # As in the served models: results must not depend on the batch size.
        torch.backends.cudnn.allow_tf32 = False
        models = (torchscript.load_torchscript(file, device) for file in files.values())
        self._encode, self._interpolate, self._decode = models

    def __call__(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Return the frames.

        Args:
            source: uint8 [B, H, W, 3].
            target: the same.
            strengths: float32 [B, S, K], in [0, 2].

        Returns:
            uint8 [B, S, H, W, 3].
        """
        with torch.inference_mode():
            features = self.encode(source, target)
            frames: Tensor = self._decode(self._interpolate(*features, strengths.to(self._device)))
            return frames.cpu()

    def encode(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Encode both pictures, the first part of a call; return their features [B, C, h, w] on the device."""
        with torch.inference_mode():
            features: tuple[Tensor, Tensor] = self._encode(source.to(self._device), target.to(self._device))
        return features

    def warm_up(self, source: Tensor, target: Tensor, strengths: Tensor) -> None:
        """Run a few calls, so that TorchScript has specialised its graph for these sizes."""
        for _ in range(_WARM_UP_CALLS):
            self(source, target, strengths)
