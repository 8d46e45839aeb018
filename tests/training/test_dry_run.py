"""`homomorph train --dry-run` says what a training would be, and does nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homomorph.data.labels import LabelledPictures
from homomorph.models.config import ModelConfig
from homomorph.models.perceptual import SmallVgg
from homomorph.training.dry_run import plan
from homomorph.training.networks import Networks
from homomorph.training.recipe import PRESETS, Preset, Recipe


@pytest.mark.parametrize("phi", ["small", "vgg19"])
def test_the_command_prints_the_plan_and_writes_nothing(
    homomorph: Callable[..., Any], avatars_folder: Path, tmp_path: Path, phi: str
) -> None:
    outcome = homomorph("train", avatars_folder, "--out", tmp_path / "run", "--steps", 70, "--phi", phi, "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    text, settings = outcome.out.split("{", 1)
    assert "120 pictures, 120 with all labels" in text
    assert "T_residual" in text
    assert "memory: about" in text
    resolved = json.loads("{" + settings)
    assert (resolved["steps"], resolved["phi"]) == (70, phi)
    assert resolved["preset"]["batch_size"] == PRESETS["avatars64"].batch_size


def test_it_counts_the_parameters_that_training_has(data: LabelledPictures, tiny: Preset) -> None:
    described = plan(data, preset=tiny, recipe=Recipe(), steps=6, phi="small", seed=0)
    config = ModelConfig(groups=data.groups, picture_size=tiny.picture_size, network=tiny.network)
    nets = Networks(config, SmallVgg(len(config.attributes)))
    everything = sum(value.numel() for value in nets.parameters())
    mean = sum(value.numel() for value in nets.ema.parameters())
    assert sum(described.parameters.values()) == everything - mean
    assert described.activation_bytes > 0
