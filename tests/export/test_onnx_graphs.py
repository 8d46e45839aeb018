"""The ONNX files beyond what every export compares: which branches run, what is inside, and who can read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.morph import MorphModel, interpolate
from homomorph_export import engines, onnx_graphs
from homomorph_export.catalogue import morph_models

CONFIG = ModelConfig({"hair": ("red",), "glasses": ("glasses",)}, 32, CompactConfig(feature_channels=16))
MODELS = {model.name: model for model in morph_models(CONFIG, labels=False)}


class Poison(torch.nn.Module):
    """A branch whose output shows wherever it is used."""

    def forward(self, difference: torch.Tensor) -> torch.Tensor:
        return difference * torch.nan


def branch_graph(name: str, module: torch.nn.Module) -> ModelProto:
    return onnx_graphs.export(module.eval(), MODELS[f"branch_{name}"], torch.zeros(2, 16, 4, 4))


@pytest.fixture(scope="module")
def poisoned(model: MorphModel, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("poisoned") / "model.onnx"
    branches = {
        "hair": branch_graph("hair", model.branches["hair"]),
        "glasses": branch_graph("glasses", Poison()),
        "residual": branch_graph("residual", Poison()),
    }
    onnx_graphs.save(onnx_graphs.interpolator(MODELS["interpolator"], None, *branches.values()), path)
    return engines.load_onnxruntime(path)


def test_an_unused_branch_is_not_computed(poisoned, model: MorphModel):
    source, target = torch.randn(2, 3, 16, 4, 4)
    strengths = torch.rand(3, 5, 3)
    strengths[:, :, 1:] = 0
    strengths[1, :, 0] = 0  # one request of the batch uses no branch at all
    with torch.inference_mode():
        none = torch.zeros_like(source)
        deltas = torch.stack([model.branches["hair"](target - source), none, none], dim=1)
        expected = interpolate(source, deltas, strengths)
    torch.testing.assert_close(poisoned(source, target, strengths), expected)


def test_a_branch_is_computed_if_one_request_of_a_batch_uses_it(poisoned):
    source, target = torch.randn(2, 3, 16, 4, 4)
    strengths = torch.zeros(3, 5, 3)
    strengths[1, 4, 1] = 0.5
    assert poisoned(source, target, strengths)[1, 4].isnan().all()


def test_runtimes_of_2024_read_the_files(repository: Path):
    for path in repository.glob("*/1/model.onnx"):
        model = onnx.load(path)
        assert model.ir_version <= 10
        assert not model.functions, "OpenVINO reads none"
        assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18}


def test_nothing_inside_tells_where_it_was_made(repository: Path):
    for path in repository.glob("*/1/model.onnx"):
        model = onnx.load(path)
        assert (model.producer_name, model.producer_version, model.doc_string) == ("homomorph", "", "")
        assert not model.metadata_props
        for node in model.graph.node:
            assert not node.doc_string
            assert not node.metadata_props
        assert b"/home" not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()


def test_names_of_tensors_do_not_depend_on_other_weights(repository: Path):
    """A part keeps its weights' names inside the models made of it, under a prefix."""
    encoder = onnx.load(repository / "encoder" / "1" / "model.onnx").graph
    pair = onnx.load(repository / "encoder_pair" / "1" / "model.onnx").graph
    weights = {tensor.name: tensor.raw_data for tensor in encoder.initializer}
    assert {tensor.name: tensor.raw_data for tensor in pair.initializer} == {
        f"encoder.{name}": data for name, data in weights.items()
    }


@pytest.mark.parametrize("size", [(4, 4), (6, 3), (1, 1)])
def test_label_target_at_any_size(repository: Path, run: Path, model: MorphModel, size: tuple[int, int]):
    from homomorph.runs.label_features import load_label_features

    label_features = load_label_features(run, model.config)
    assert label_features is not None
    session = onnxruntime.InferenceSession(repository / "label_target" / "1" / "model.onnx")
    labels = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    (target,) = session.run(None, {"SOURCE": np.zeros((2, 16, *size), np.float32), "LABELS": labels})
    expected = label_features(torch.from_numpy(labels), size)
    np.testing.assert_allclose(target, expected, rtol=0, atol=1e-5)
