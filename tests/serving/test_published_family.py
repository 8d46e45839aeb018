"""A model of the published networks, whose stride is 16, behind the real server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from homomorph.models.config import ModelConfig, PublishedConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.run import save_model
from homomorph.training.strips import morph_pixels
from homomorph_client import MorphClient
from homomorph_export.exporter import export_run
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server


def test_it_is_served_like_any_other(tmp_path: Path, pictures: npt.NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    network = PublishedConfig(feature_channels=32, widths=(8, 12, 16, 24))
    model = MorphModel(
        ModelConfig(groups={"hair": ("black", "blond"), "age": ("young",)}, picture_size=64, network=network)
    ).eval()
    for weights in model.decoder.parameters():  # without this, D says nearly the same of all features
        if weights.ndim == 4:
            torch.nn.init.kaiming_normal_(weights)
    save_model(tmp_path / "run", model)
    export_run(tmp_path / "run", tmp_path / "triton_repo", onnx=False, threads=1)
    strengths = np.array([[0, 0, 0], [0.5, 0, 0], [0, 1.5, 0], [1, 1, 1]], dtype=np.float32)
    with TritonServer(tmp_path / "triton_repo", models=("morph",)) as server, MorphClient(server.grpc_url) as client:
        assert client.picture_size == 64
        assert client.groups == ("hair", "age", "residual")
        frames = client.morph(pictures[0], pictures[1], strengths=strengths)
    source, target = torch.from_numpy(pictures).permute(0, 3, 1, 2).split(1)
    expected = morph_pixels(model, source, target, torch.from_numpy(strengths)[None])[0].permute(0, 2, 3, 1).numpy()
    assert frames.shape == (4, 64, 64, 3)
    assert np.abs(frames.astype(int) - expected.astype(int)).max() <= 1
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).max() > 10
