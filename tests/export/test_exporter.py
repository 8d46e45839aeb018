"""What an export writes, refuses, replaces and leaves alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from homomorph.errors import CheckpointError
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import load_model, resolve_run, save_model
from homomorph_client.errors import OutputError
from homomorph_export import engines, parity, torchscript
from homomorph_export.catalogue import morph_models, translation_models
from homomorph_export.errors import ExportError
from homomorph_export.exporter import export_run
from homomorph_export.formats import eager_modules
from homomorph_export.manifest import Manifest
from homomorph_export.ops.interpolate import load_operator
from homomorph_export.parts import exported_parts
from homomorph_export.reference import MorphRun
from homomorph_export.repository import write_description
from homomorph_export.servable import DecoderServable


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_manifest_accounts_for_every_file(exported: tuple[Path, Manifest]):
    repository, returned = exported
    files = snapshot(repository)
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["files"] == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    assert manifest["groups"] == ["hair", "glasses", "residual"]
    assert (manifest["picture_size"], manifest["stride"], manifest["precision"]) == (32, 8, "fp32")
    assert manifest["versions"]["torch"] == torch.__version__
    assert set(manifest["parity"]) == {"torchscript", "onnx"}
    for file_format, measured in manifest["parity"].items():
        assert measured["precision"] == "fp32"
        assert measured["mean"] == returned.parity[file_format].mean <= 0.02
        assert measured["max"] == returned.parity[file_format].max <= 1
        assert len(measured["batch_sizes"]) >= 2
        assert len(measured["picture_sizes"]) >= 2


def test_another_run_replaces_what_is_there_and_leaves_the_rest(run: Path, repository: Path, tmp_path: Path):
    target = tmp_path / "repository"
    shutil.copytree(repository, target)
    (target / "foreign").mkdir()
    (target / "foreign" / "config.pbtxt").write_text("name: 'foreign'")
    (target / "README.md").write_text("about this folder")
    settings = json.loads((run / "config.json").read_text())
    settings["groups"] = {"hat": ["hat"]}
    save_model(tmp_path / "other", MorphModel(ModelConfig.from_dict(settings)))
    export_run(tmp_path / "other", target, onnx=False)
    folders = {path.name for path in target.iterdir() if path.is_dir()}
    assert "foreign" in folders
    assert "branch_hat" in folders
    assert "branch_hair" not in folders
    assert (target / "README.md").read_text() == "about this folder"
    assert json.loads((target / "manifest.json").read_text())["groups"] == ["hat", "residual"]
    assert not list(tmp_path.glob(".*")), "a temporary folder was left behind"


def test_an_export_takes_the_place_of_configurations_without_weights(run: Path, tmp_path: Path):
    """As version control holds them, of another run."""
    target = tmp_path / "repository"
    other = ModelConfig(groups={"hat": ("hat",)}, picture_size=64)
    for entry in morph_models(other, labels=True):
        write_description(target / entry.name, entry, method="homomorph")
    for entry in translation_models({"smiling": 4}, 64):
        write_description(target / entry.name, entry, method="cyclegan")
    export_run(run, target, onnx=False)
    folders = {path.name for path in target.iterdir() if path.is_dir()}
    assert {"branch_hair", "translate_smiling", "translate"} <= folders
    assert "branch_hat" not in folders
    assert (target / "encoder" / "1" / "model.pt").exists()


def test_a_foreign_folder_in_the_way_stops_the_export(run: Path, tmp_path: Path):
    target = tmp_path / "repository"
    (target / "encoder").mkdir(parents=True)
    (target / "encoder" / "mine").write_text("keep me")
    before = snapshot(target)
    with pytest.raises(ExportError, match="encoder is not from an earlier export"):
        export_run(run, target, onnx=False)
    assert snapshot(target) == before


def test_a_wrong_export_writes_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = DecoderServable.forward
    monkeypatch.setattr(DecoderServable, "forward", lambda self, FEATURES: right(self, FEATURES * 1.1))
    with pytest.raises(ExportError, match=r"TorchScript files .* grey levels off on average"):
        export_run(run, tmp_path / "repository", onnx=False)
    assert not list(tmp_path.iterdir())


def loaded(repository: Path, file: str) -> dict[str, Callable[..., Any]]:
    load_operator()
    load = {"model.pt": torchscript.load_torchscript, "model.onnx": engines.load_onnxruntime}[file]
    return {path.parents[1].name: load(path) for path in repository.glob(f"*/1/{file}")}


@pytest.mark.parametrize("file", ["model.pt", "model.onnx"])
def test_every_file_is_compared(run: Path, repository: Path, model: MorphModel, file: str):
    right = loaded(repository, file)
    reference = MorphRun(model, load_label_features(run, model.config))
    for labels in (True, False):
        models = morph_models(model.config, labels=labels)
        here = {entry.name: right[entry.name] for entry in models if entry.name in right}
        parity.compare(models, here, reference, kind="the", precision="fp32")
        for name in here if labels else ["encoder"]:  # which is a step of `edit`, if there is that
            wrong = here | {name: lambda *tensors, name=name: spoiled(here[name](*tensors))}  # noqa: B023
            with pytest.raises(ExportError, match="grey levels off on average"):
                parity.compare(models, wrong, reference, kind="the", precision="fp32")


def spoiled(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(map(spoiled, result))
    return result ^ 8 if result.dtype == torch.uint8 else result + 1


def test_a_model_that_nothing_compares_is_an_error(run: Path, repository: Path, model: MorphModel):
    right = loaded(repository, "model.onnx")
    reference = MorphRun(model, load_label_features(run, model.config))
    models = morph_models(model.config, labels=True)
    added = dataclasses.replace(models[0], name="added", compared_as=None)
    with pytest.raises(ExportError, match="nothing compares added with the run"):
        parity.compare((*models, added), right | {"added": right["encoder"]}, reference, kind="ONNX", precision="fp32")
    morph = next(entry for entry in models if entry.name == "morph")
    ensemble = dataclasses.replace(morph, name="ensemble", reference=None)
    with pytest.raises(ExportError, match="nothing compares ensemble with the run"):
        parity.compare((*models, ensemble), right, reference, kind="ONNX", precision="fp32")
    del right["decoder"]
    with pytest.raises(ExportError, match=r"nothing compares encoder, .*, decoder, morph, .* with the run"):
        parity.compare(models, right, reference, kind="ONNX", precision="fp32")


def test_an_ensemble_that_is_wired_wrongly_is_found():
    folder = resolve_run("avatars64")  # of random weights, frames hardly depend on the picture
    model = load_model(folder)
    reference = MorphRun(model, load_label_features(folder, model.config))
    models = list(morph_models(model.config, labels=True))
    modules = eager_modules(models, exported_parts(model, reference.label_features, torch.float32))
    parity.compare(models, modules, reference, kind="the", precision="fp32")
    (place,) = (place for place, entry in enumerate(models) if entry.name == "morph_branches")
    first, *rest = models[place].steps
    swapped = dataclasses.replace(first, inputs={"SOURCE": "TARGET", "TARGET": "SOURCE"})
    models[place] = dataclasses.replace(models[place], steps=(swapped, *rest))
    with pytest.raises(ExportError, match="grey levels off on average"):
        parity.compare(models, modules, reference, kind="the", precision="fp32")


def test_nan_is_not_within_the_tolerance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parity, "torch", SimpleNamespace(**vars(torch) | {"cat": lambda _: torch.tensor([torch.nan])}))
    with pytest.raises(ExportError, match="nan grey levels"):
        parity.measure_parity([], kind="ONNX", precision="fp32")


def test_without_onnx_there_is_neither_file_nor_configuration(run: Path, tmp_path: Path):
    manifest = export_run(run, tmp_path / "repository", onnx=False)
    assert set(manifest.parity) == {"torchscript"}
    assert not [path for path in manifest.files if "onnx" in path]
    for name in ("decoder", "morph"):
        assert (tmp_path / "repository" / name / "configs" / "libtorch.pbtxt").exists()


@pytest.mark.parametrize(("precision", "of_onnx"), [("bf16", "fp32"), ("fp16", "fp16")])
def test_16_bit_numbers(run: Path, repository: Path, tmp_path: Path, precision: str, of_onnx: str):
    manifest = export_run(run, tmp_path / "repository", precision=precision)
    assert manifest.precision == precision
    assert {name: parity.precision for name, parity in manifest.parity.items()} == {
        "torchscript": precision,
        "onnx": of_onnx,
    }
    assert 0 < manifest.parity["torchscript"].mean <= 0.5
    smaller = tmp_path / "repository" / "decoder" / "1" / "model.pt"
    assert smaller.stat().st_size < (repository / "decoder" / "1" / "model.pt").stat().st_size


@pytest.mark.parametrize("damage", ["{", "[]", '{"models": ["../elsewhere"]}'])
def test_a_damaged_manifest_is_not_guessed_around(run: Path, repository: Path, tmp_path: Path, damage: str):
    target = tmp_path / "repository"
    shutil.copytree(repository, target)
    (target / "manifest.json").write_text(damage)
    with pytest.raises(ExportError, match="is damaged"):
        export_run(run, target, onnx=False)


def test_no_run_no_export(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        export_run(tmp_path / "nowhere", tmp_path / "repository")


def test_an_unusable_folder_is_an_error_of_one_line(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="repository cannot be written"):
        export_run(run, tmp_path / "file" / "repository")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8", "onnx": False}, "precision 'int8' is for ONNX alone: leave out --no-onnx"),
        ({"calibration": Path()}, "--calibration is for --precision int8: fp32 needs no pictures"),
        ({"calibration": Path(), "precision": "bf16"}, "--calibration is for --precision int8: bf16 needs no pictures"),
    ],
    ids=str,
)
def test_options_without_effect_are_refused(run: Path, tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(ExportError, match=message):
        export_run(run, tmp_path / "repository", **options)
    assert not list(tmp_path.iterdir())


def test_precision_is_checked(run: Path, tmp_path: Path):
    with pytest.raises(ExportError, match="precision 'fp8' is not offered"):
        export_run(run, tmp_path / "repository", precision="fp8")
