"""A small rendered set and a preset that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from homomorph.data.labels import LabelledPictures, read_labelled
from homomorph.data.render_set import render_set
from homomorph.models.config import CompactConfig
from homomorph.training.settings import MorphPreset


@pytest.fixture(scope="session")
def avatars_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 labelled pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("data") / "avatars"
    render_set(folder, count=120, size=32, seed=3, workers=1)
    return folder


@pytest.fixture(scope="session")
def data(avatars_folder: Path) -> LabelledPictures:
    """The same, read."""
    return read_labelled(avatars_folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 labelled pictures of 32 pixels, to evaluate on."""
    path = tmp_path_factory.mktemp("held_out") / "avatars"
    render_set(path, count=700, size=32, seed=11, workers=1)
    return path


@pytest.fixture(scope="session")
def tiny() -> MorphPreset:
    """A preset of a few thousand parameters."""
    network = CompactConfig(
        feature_channels=16,
        widths=(8, 12, 16),
        encoder_blocks=(0, 0, 1),
        decoder_blocks=(0, 0, 1),
        decoder_layers=2,
        branch_width=8,
    )
    return MorphPreset(picture_size=32, network=network, batch_size=8, steps=6)
