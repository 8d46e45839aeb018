"""int8: what is quantised, on which pictures, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from homomorph_export import parity, quantisation
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
        patch.setattr(quantisation, "LARGEST_MEAN_DIFFERENCE", 5)
        repository = tmp_path_factory.mktemp("int8") / "repository"
        return repository, export_run(run, repository, precision="int8", calibration=pictures)


def quantised_convolutions(repository: Path, model: str) -> list[bool]:
    graph = onnx.load(repository / model / "1" / "model.onnx").graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    return [made_by.get(node.input[1]) == "DequantizeLinear" for node in graph.node if node.op_type == "Conv"]


def operators(repository: Path, model: str) -> list[str]:
    return [node.op_type for node in onnx.load(repository / model / "1" / "model.onnx").graph.node]


def test_convolutions_are_quantised_but_for_the_first_and_the_last(export):
    repository, _ = export
    for model in ("encoder", "encoder_pair", "decoder"):
        first, *between, last = quantised_convolutions(repository, model)
        assert not first
        assert not last
        assert all(between)
    for model in ("branch_hair", "interpolate"):
        assert "QuantizeLinear" not in operators(repository, model)


def test_last_convolutions_of_the_decoder_stay_at_float32_where_its_pictures_need_it(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(parity, "TOLERANCES", TOLERANCES | {"int8": Tolerance(mean=5, max=None)})
    counts = []
    for limit in (5, 0.005, 0):
        monkeypatch.setattr(quantisation, "LARGEST_MEAN_DIFFERENCE", limit)
        export_run(run, tmp_path / str(limit), precision="int8", calibration=pictures)
        counts.append(quantised_convolutions(tmp_path / str(limit), "decoder"))
        assert quantised_convolutions(tmp_path / str(limit), "encoder")[1]
    assert sum(counts[0]) > sum(counts[1]) >= sum(counts[2]) == 0
    assert counts[1] == sorted(counts[1][:1]) + sorted(counts[1][1:], reverse=True), "those nearest to the pictures"
    assert f"the last {len(counts[0]) - 1} of its {len(counts[0])} convolutions stay at float32" in caplog.text


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
