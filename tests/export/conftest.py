"""A small run with random weights, and the repository exported from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph.runs.label_features import save_label_features
from homomorph.runs.run import load_model, save_model
from homomorph_export.exporter import export_run
from homomorph_export.manifest import Manifest

CONFIG = ModelConfig(
    groups={"hair": ("red", "blue"), "glasses": ("glasses",)},
    picture_size=32,
    network=CompactConfig(
        feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1), branch_width=8
    ),
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MorphModel(CONFIG)
    for parameter in model.parameters():
        # What starts at zero would hide what an export gets wrong.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("run")
    save_model(folder, model)
    fitted = LabelFeatures(CONFIG)
    for values in fitted.buffers():
        torch.nn.init.normal_(values)
    save_label_features(folder, fitted)
    return folder


@pytest.fixture(scope="session")
def model(run: Path) -> MorphModel:
    return load_model(run)


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The exported repository, which tests must not change, and what the export returned."""
    repository = tmp_path_factory.mktemp("export") / "repository"
    return repository, export_run(run, repository)


@pytest.fixture(scope="session")
def repository(exported: tuple[Path, Manifest]) -> Path:
    return exported[0]
