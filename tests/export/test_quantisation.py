"""int8: what is quantised, on which pictures, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from homomorph_export import parity
from homomorph_export.errors import ExportError
from homomorph_export.exporter import export_run
from homomorph_export.precision import TOLERANCES, Tolerance


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 72 pictures of colours that run into each other."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for index in range(72):
        colours = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def export(run: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory):
    """The int8 repository of a run with random weights, which 8 bits may serve worse than trained ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "TOLERANCES", TOLERANCES | {"int8": Tolerance(mean=5, max=None)})
        repository = tmp_path_factory.mktemp("int8") / "repository"
        return repository, export_run(run, repository, precision="int8", calibration=pictures)


def operators(repository: Path, model: str) -> list[str]:
    return [node.op_type for node in onnx.load(repository / model / "1" / "model.onnx").graph.node]


def test_convolutions_are_quantised_but_for_the_first_and_the_last(export):
    repository, _ = export
    for model in ("encoder", "encoder_pair", "decoder"):
        graph = onnx.load(repository / model / "1" / "model.onnx").graph
        made_by = {output: node.op_type for node in graph.node for output in node.output}
        kinds = [made_by.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
        assert (kinds[0], kinds[-1]) == (None, None)
        assert set(kinds[1:-1]) == {"DequantizeLinear"}
    for model in ("branch_hair", "interpolate"):
        assert "QuantizeLinear" not in operators(repository, model)


def test_it_is_measured_and_torchscript_stays_at_float32(export, repository: Path):
    int8, manifest = export
    assert manifest.precision == "int8"
    assert manifest.parity["onnx"].precision == "int8"
    assert manifest.parity["torchscript"].precision == "fp32"
    assert manifest.parity["onnx"].mean > 0
    weights = [(folder / "encoder" / "1" / "model.onnx").stat().st_size for folder in (int8, repository)]
    assert weights[0] < weights[1]


def test_nothing_to_calibrate_on(run: Path, tmp_path: Path):
    with pytest.raises(ExportError, match="--calibration DIR"):
        export_run(run, tmp_path / "repository", precision="int8")
    with pytest.raises(ExportError, match="holds 0 pictures, and calibrating int8 needs 72"):
        export_run(run, tmp_path / "repository", precision="int8", calibration=tmp_path)
    assert not list(tmp_path.iterdir())
