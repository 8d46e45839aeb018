"""What an export writes, refuses, replaces and leaves alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from homomorph.config import ModelConfig
from homomorph.errors import CheckpointError
from homomorph.networks import MorphModel
from homomorph.run import save_model
from homomorph_export import parity
from homomorph_export.errors import ExportError
from homomorph_export.exporter import export_run
from homomorph_export.manifest import Manifest
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
    assert manifest["parity"]["mean"] == returned.parity.mean <= 0.02
    assert manifest["parity"]["max"] == returned.parity.max <= 1
    assert len(manifest["parity"]["batch_sizes"]) >= 2
    assert len(manifest["parity"]["picture_sizes"]) >= 2


def test_another_run_replaces_what_is_there_and_leaves_the_rest(run: Path, repository: Path, tmp_path: Path):
    target = tmp_path / "repository"
    shutil.copytree(repository, target)
    (target / "foreign").mkdir()
    (target / "foreign" / "config.pbtxt").write_text("name: 'foreign'")
    (target / "README.md").write_text("about this folder")
    settings = json.loads((run / "config.json").read_text())
    settings["groups"] = {"hat": ["hat"]}
    save_model(tmp_path / "other", MorphModel(ModelConfig.from_dict(settings)))
    export_run(tmp_path / "other", target)
    folders = {path.name for path in target.iterdir() if path.is_dir()}
    assert "foreign" in folders
    assert "branch_hat" in folders
    assert "branch_hair" not in folders
    assert (target / "README.md").read_text() == "about this folder"
    assert json.loads((target / "manifest.json").read_text())["groups"] == ["hat", "residual"]
    assert not list(tmp_path.glob(".*")), "a temporary folder was left behind"


def test_a_foreign_folder_in_the_way_stops_the_export(run: Path, tmp_path: Path):
    target = tmp_path / "repository"
    (target / "encoder").mkdir(parents=True)
    (target / "encoder" / "mine").write_text("keep me")
    before = snapshot(target)
    with pytest.raises(ExportError, match="encoder is not from an earlier export"):
        export_run(run, target)
    assert snapshot(target) == before


def test_a_wrong_export_writes_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = DecoderServable.forward
    monkeypatch.setattr(DecoderServable, "forward", lambda self, FEATURES: right(self, FEATURES * 1.1))
    with pytest.raises(ExportError, match="grey levels off on average"):
        export_run(run, tmp_path / "repository")
    assert not list(tmp_path.iterdir())


def test_nan_is_not_within_the_tolerance(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parity, "_BATCH_SIZES", ())
    # For that module alone: what is exported is compiled from sources that call the real one.
    nan_torch = SimpleNamespace(**vars(torch) | {"cat": lambda tensors: torch.tensor([torch.nan])})
    monkeypatch.setattr(parity, "torch", nan_torch)
    with pytest.raises(ExportError, match="grey levels"):
        export_run(run, tmp_path / "repository")


@pytest.mark.parametrize("damage", ["{", "[]", '{"models": ["../elsewhere"]}'])
def test_a_damaged_manifest_is_not_guessed_around(run: Path, repository: Path, tmp_path: Path, damage: str):
    target = tmp_path / "repository"
    shutil.copytree(repository, target)
    (target / "manifest.json").write_text(damage)
    with pytest.raises(ExportError, match="is damaged"):
        export_run(run, target)


def test_no_run_no_export(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        export_run(tmp_path / "nowhere", tmp_path / "repository")


def test_an_unusable_folder_is_an_error_of_one_line(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="repository cannot be written"):
        export_run(run, tmp_path / "file" / "repository")


def test_precision_is_checked(run: Path, tmp_path: Path):
    with pytest.raises(ExportError, match="precision 'int8' is not offered"):
        export_run(run, tmp_path / "repository", precision="int8")
