"""Packages of AOTInductor compute what the modules that they are compiled from compute, at any size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from homomorph.models.morph import MorphModel
from homomorph.runs.label_features import load_label_features
from homomorph_export import aotinductor
from homomorph_export.catalogue import morph_models
from homomorph_export.contract import Model
from homomorph_export.errors import ExportError
from homomorph_export.exporter import export_run
from homomorph_export.formats import eager_modules
from homomorph_export.parts import exported_parts
from homomorph_export.repository import AOTINDUCTOR_FILE


def served(model: MorphModel) -> dict[str, Model]:
    return {entry.name: entry for entry in morph_models(model.config, labels=True)}


def test_every_model_is_recorded_for_any_size(run: Path, model: MorphModel):
    entries = served(model)
    parts = exported_parts(model, load_label_features(run, model.config), torch.float32)
    modules = eager_modules(entries.values(), parts)
    assert set(modules) == {name for name, entry in entries.items() if not (entry.steps or entry.joint)}
    for name, module in modules.items():
        program = aotinductor.record(module, entries[name])  # which refuses what holds for the example's sizes only
        assert len(program.graph_signature.user_outputs) == len(entries[name].outputs)


@pytest.mark.slow
@torch.no_grad()
def test_sizes_are_free(model: MorphModel, tmp_path: Path):
    module = exported_parts(model, None, torch.float32).decoder
    aotinductor.compile_package(module, served(model)["decoder"], tmp_path / "model.pt2")
    package = aotinductor.load_package(tmp_path / "model.pt2")
    generator = torch.Generator().manual_seed(0)
    for batch, steps, height, width in ((1, 1, 1, 1), (2, 3, 4, 4), (3, 1, 8, 4), (8, 2, 1, 5)):
        features = torch.randn(batch, steps, 16, height, width, generator=generator)
        frames = package(features)
        assert frames.shape == (batch, steps, 8 * height, 8 * width, 3)
        difference = (frames.int() - module(features).int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.02


def test_without_a_compiler_nothing_is_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", no_compiler)
    with pytest.raises(ExportError, match="AOTInductor cannot compile encoder: no C"):
        export_run(run, tmp_path / "repository", aot=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_model_has_a_package(run: Path, tmp_path: Path):
    manifest = export_run(run, tmp_path / "repository", aot=True)
    measured = manifest.parity["aotinductor"]
    assert measured.mean <= 0.02
    assert measured.max <= 1
    alone = {name for name in manifest.models if f"{name}/{AOTINDUCTOR_FILE}" in manifest.files}
    # `morpher` is what the Python backend runs: the three networks of a morph as methods of one TorchScript module.
    assert alone == {name for name in manifest.models if f"{name}/1/model.pt" in manifest.files} - {"morpher"}
    assert dataclasses.asdict(measured)["batch_sizes"] == (1, 3)
