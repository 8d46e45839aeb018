"""One real server with one random model, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from homomorph.config import ModelConfig
from homomorph.label_features import LabelFeatures, save_label_features
from homomorph.networks import MorphModel
from homomorph.run import save_model
from homomorph_client import MorphClient
from homomorph_export.exporter import export_run
from homomorph_export.server import TritonServer


@dataclass(frozen=True)
class Served:
    """A running server, and in `model` what it should compute."""

    url: str
    repository: Path
    model: MorphModel
    label_features: LabelFeatures

    def expected(
        self, source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8], strengths: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        """Compute [B, H, W, 3], [B, H, W, 3] and [B, S, K] -> uint8 [B, S, H, W, 3] with eager PyTorch."""
        network = self.model.config.network
        mean = torch.tensor(network.picture_mean).view(3, 1, 1)
        std = torch.tensor(network.picture_std).view(3, 1, 1)
        a, b = ((torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std for x in (source, target))
        with torch.inference_mode():
            frames = self.model(a, b, torch.from_numpy(strengths)) * std + mean
        pixels: npt.NDArray[np.uint8] = (frames.clamp(0, 1) * 255).round().to(torch.uint8).movedim(2, -1).numpy()
        return pixels


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Export a small model with random weights and serve it with the real tritonserver."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    model = MorphModel(ModelConfig(groups={"hair": ("black", "blond"), "glasses": ("glasses",)})).eval()
    for name, weights in model.named_parameters():
        if name.startswith("branches") or not weights.any():  # what starts small or at zero should matter here
            torch.nn.init.normal_(weights, std=0.1)
    # With a last layer as large as this, frames fill the range from black to white.
    torch.nn.init.normal_([weights for weights in model.decoder.parameters() if weights.ndim == 4][-1], std=0.3)
    save_model(folder / "run", model)
    label_features = LabelFeatures(model.config)
    for values in label_features.buffers():
        torch.nn.init.normal_(values)
    save_label_features(folder / "run", label_features)
    export_run(folder / "run", folder / "triton_repo", threads=1)
    with TritonServer(folder / "triton_repo", models=("morph", "edit")) as server:
        yield Served(server.grpc_url, folder / "triton_repo", model, label_features)


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[MorphClient]:
    """A client of the session's server."""
    with MorphClient(served.url) as client:
        yield client


@pytest.fixture
def pictures() -> npt.NDArray[np.uint8]:
    """Two smooth random pictures, uint8 [2, 64, 64, 3]."""
    return smooth_pictures(2, 64, 64)


def smooth_pictures(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [count, height, width, 3]: coarse noise, enlarged."""
    coarse = torch.rand((count, 3, 6, 6), generator=torch.Generator().manual_seed(count * height + width))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    pixels: npt.NDArray[np.uint8] = (fine * 255).to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return pixels
