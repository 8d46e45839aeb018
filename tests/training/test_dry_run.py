"""`homomorph train --dry-run` says what a training would be, and writes nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from homomorph.data.labels import LabelledPictures
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.dry_run import describe
from homomorph.training.methods import make_method
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset


def test_the_command_prints_the_plan_and_writes_nothing(
    homomorph: Callable[..., Any], avatars_folder: Path, tmp_path: Path
) -> None:
    words = ["--steps", 70, "--set", "batch_size=2", "--set", "recipe.front=2", "--set", "jitter.probability=0"]
    outcome = homomorph("train", avatars_folder, "--out", tmp_path / "run", *words, "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    text, settings = outcome.out.split("\nmodel:", 1)
    assert "120 pictures, 120 with all labels, 100 % of all labels known" in text
    assert "memory: about" in text
    resolved = yaml.safe_load("model:" + settings)
    assert (resolved["preset"]["steps"], resolved["recipe"]["front"]) == (70, 2)
    assert resolved["preset"]["jitter"]["probability"] == 0
    assert resolved["preset"]["jitter"]["shift"] > 0


def test_memory_is_that_of_the_phase_that_needs_most(data: LabelledPictures, tiny: MorphPreset) -> None:
    def activations(**recipe: float) -> int:
        preset = dataclasses.replace(tiny, steps=10, batch_size=64, recipe=DefaultRecipe(arrive=1, **recipe))
        found = re.search(r"and (\d+) MB for a step", describe(data, preset))
        assert found is not None
        return int(found[1])

    morphs, both_phases = (activations(decoder_from=share) for share in (1, 0.5))
    assert morphs < both_phases, "D decodes frames on the way while it learns alone"


@pytest.mark.parametrize("method", ["default", "published", "cyclegan"])
def test_it_counts_the_parameters_that_training_has(data: LabelledPictures, tiny: MorphPreset, method: str) -> None:
    preset: MorphPreset | CycleGANPreset = tiny
    if method == "published":
        preset = dataclasses.replace(tiny, recipe=PublishedRecipe(phi_steps=1))
    elif method == "cyclegan":
        preset = CycleGANPreset(
            "smiling", generator="resnet_6blocks", filters=2, discriminator_filters=2, picture_size=32, batch_size=2
        )
    described = describe(data, preset)
    made = make_method(data, preset)
    for name in made.optimizers:
        count = sum(value.numel() for value in made.networks.get_submodule(name).parameters())
        assert described.count(f"{name.removeprefix('model.')} {count:,}") == 1
    assert " MB for a step's activations" in described
    assert " and 0 MB for a step" not in described
