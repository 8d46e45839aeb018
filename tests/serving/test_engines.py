"""`homomorph serve --engine` with the real server."""

from __future__ import annotations

import importlib.util
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from homomorph_client import MorphClient
from homomorph_export import onnx_graphs
from homomorph_export.catalogue import morph_models
from homomorph_export.examples import zeros
from homomorph_export.parts import exported_parts
from homomorph_export.repository import ONNX_FILE
from homomorph_export.serving.server import TritonServer


@pytest.mark.server
@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_engine_computes_the_frames(homomorph: Callable[..., Any], served: Any, tmp_path: Path, engine: str) -> None:
    if not importlib.util.find_spec(engine):  # not imported here: OpenVINO beside gRPC crashed
        pytest.skip(f"{engine} is not installed")
    repository = tmp_path / "triton_repo"
    shutil.copytree(served.repository, repository)
    words = ["serve", "--repository", repository, "--model", "morph", "--gpus", "none", "--engine", engine]
    outcome = homomorph(*words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert (
        "encoder/1/model.onnx, which does not exist: write the repository again with `homomorph export`" in outcome.err
    )

    parts = exported_parts(served.model, None, torch.float32)
    models = {model.name: model for model in morph_models(served.model.config, labels=False)}
    for name, part in (("encoder", parts.encoder), ("decoder", parts.decoder)):
        onnx_graphs.save(onnx_graphs.export(part, models[name], *zeros(models[name], 2)), repository / name / ONNX_FILE)
    with TritonServer(repository, engine=engine) as server:
        for size in (64, 96):
            random = np.random.default_rng(size)
            source, target = random.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
            strengths = random.random((5, 3), dtype=np.float32)
            with MorphClient(server.grpc_url, picture_size=size) as client:
                frames = client.morph(source, target, strengths=strengths)
            expected = served.expected(source[None], target[None], strengths[None])[0]
            assert np.abs(frames.astype(int) - expected).max() <= 1
        with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=20) as answer:
            metrics = answer.read().decode()
    assert f'homomorph_compute_duration_us{{engine="{engine}",model="morpher"}}' in metrics
