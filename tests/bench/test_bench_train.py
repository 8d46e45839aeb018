"""`homomorph bench train`: whole steps with all terms, each case against the same one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homomorph.models.config import CompactConfig
from homomorph.models.perceptual import SmallVgg
from homomorph.progress import Progress
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph.training.recipe import PUBLISHED, Preset, Recipe
from homomorph_bench import train

NETWORK = CompactConfig(
    feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1), branch_width=8
)
PRESET = Preset(picture_size=32, network=NETWORK, batch_size=4)
PHI = SmallVgg(sum(map(len, CELEBA_GROUPS.values())))


def test_each_case_is_a_record() -> None:
    reports: list[Progress] = []
    records = train.run(PRESET, PUBLISHED, PHI, repeats=10, threads=1, report=reports.append)
    assert [record.name for record in records] == [f"{case}, training step" for case in train.CASES]
    assert {record.baseline for record in records} == {f"{train.BASELINE}, training step"}
    assert records[0].ratio == 1
    assert all(record.value > 0 for record in records)
    assert records[0].meta["threads"] == 1
    assert reports[-1] == Progress("steps", 11, 11)


@pytest.mark.parametrize("recipe", [Recipe(), PUBLISHED], ids=["ours", "published"])
def test_a_step_has_all_terms_of_its_recipe(recipe: Recipe) -> None:
    take_step = train.prepare_step(train.CASES["bf16, channels_last"], PRESET, recipe, PHI)
    terms = take_step()
    assert {"pixel", "gan", "homomorphism"} <= terms.keys()
    assert all(math.isfinite(value) for value in terms.values())
    assert take_step() != terms, "the networks learn"


def test_an_unknown_preset_is_refused(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    outcome = homomorph("bench", "train", "--out", tmp_path, "--preset", "none")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "'none' is not one of" in outcome.err
