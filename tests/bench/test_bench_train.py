"""`homomorph bench train`: whole steps with all terms, and parts of one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homomorph.models.config import CompactConfig
from homomorph.progress import Progress
from homomorph.training.default.recipe import TERMS, DefaultRecipe
from homomorph.training.parallel import Processes
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset
from homomorph_bench import train

NETWORK = CompactConfig(
    feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1), branch_width=8
)
JUDGED = DefaultRecipe(arrive=1, real=1, labels=1, keep=1, read=1, decoder_from=1)
OF_FRONTS = {"front", "sweep"}
PRESET = MorphPreset(picture_size=32, network=NETWORK, batch_size=4)


def test_each_case_is_a_record() -> None:
    reports: list[Progress] = []
    records = train.run(PRESET, repeats=10, threads=1, report=reports.append)
    assert records[0].name == f"{train.BASELINE}, training"
    assert {record.baseline for record in records} == {records[0].name}
    assert records[0].ratio == 1
    assert all(record.value > 0 for record in records)
    assert records[0].meta["threads"] == 1
    assert (reports[-1].done, reports[-1].total) == (11, 11)


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (JUDGED, {*TERMS, "judgement"} - OF_FRONTS),
        (DefaultRecipe(arrive=1), {"reconstruction", "arrive", "total"} | OF_FRONTS),
        (PublishedRecipe(), {"phi3", "gan", "homomorphism", "penalty"}),
    ],
    ids=["critic", "decoder", "published"],
)
def test_a_step_has_all_terms_of_its_recipe(recipe: DefaultRecipe | PublishedRecipe, names: set[str]) -> None:
    take_step = train.prepare_step(dataclasses.replace(PRESET, recipe=recipe), Processes("cpu", "bf16"))
    terms = {name: value.item() for name, value in take_step().items()}
    assert names <= terms.keys()
    assert all(math.isfinite(value) for value in terms.values())
    assert {name: value.item() for name, value in take_step().items()} != terms, "the networks learn"


def test_an_unknown_preset_is_refused(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    outcome = homomorph("bench", "train", "--out", tmp_path, "--preset", "none")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "there is no preset 'none'" in outcome.err
