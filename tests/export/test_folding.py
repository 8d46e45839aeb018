"""BatchNorm and upsampling of decoders: part of their convolutions in every format, with the same results."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from homomorph.models.compact import Decoder
from homomorph.models.config import CompactConfig, ModelConfig, PublishedConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.run import save_model
from homomorph_export import torchscript
from homomorph_export.exporter import export_run
from homomorph_export.manifest import Manifest
from homomorph_export.parts import folded


@pytest.fixture(scope="module")
def published() -> MorphModel:
    """The published networks in small, their BatchNorm away from its start."""
    torch.manual_seed(0)
    network = PublishedConfig(feature_channels=32, widths=(8, 12, 16, 24))
    model = MorphModel(ModelConfig(groups={"hair": ("black",)}, picture_size=32, network=network))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model.eval()


@pytest.fixture(scope="module")
def exported(published: MorphModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("published")
    save_model(folder / "run", published)
    return folder / "repository", export_run(folder / "run", folder / "repository")


FOLDED_LAYERS = (nn.BatchNorm2d, nn.Upsample)


@pytest.mark.parametrize("family", ["published", "compact"])
def test_folding_changes_layers_and_not_results(family: str, published: MorphModel):
    decoder = published.decoder if family == "published" else Decoder(CompactConfig(feature_channels=32)).eval()
    before = decoder(features := torch.randn(2, 32, 2, 3))
    with_fewer = folded(decoder)
    assert not any(isinstance(layer, FOLDED_LAYERS) for layer in with_fewer.modules())
    assert any(isinstance(layer, FOLDED_LAYERS) for layer in decoder.modules()), "the run stays as it is"
    torch.testing.assert_close(with_fewer(features), before, rtol=1e-4, atol=1e-4)


def test_no_format_normalises_or_upsamples(exported: tuple[Path, Manifest]):
    decoder = exported[0] / "decoder" / "1"
    operations = {node.op_type for node in onnx.load(decoder / "model.onnx").graph.node}
    assert operations.isdisjoint({"BatchNormalization", "Resize", "Upsample"})
    graph = torchscript.load_torchscript(decoder / "model.pt").inlined_graph
    assert {node.kind() for node in graph.nodes()}.isdisjoint({"aten::batch_norm", "aten::upsample_nearest2d"})


def test_both_formats_compute_what_the_run_computes(exported: tuple[Path, Manifest]):
    _, manifest = exported
    assert all(parity.mean <= 0.02 and parity.max <= 1 for parity in manifest.parity.values())
