"""`homomorph train`: what it refuses, in one line and before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from homomorph.data.render_set import render_set
from homomorph.progress import Progress
from homomorph.training.default.recipe import TERMS, DefaultRecipe
from homomorph_cli.train import _with_displayed_figures

SMALL_CYCLEGAN = ("--set", "filters=2", "--set", "discriminator_filters=2", "--steps", 1, "--workers", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("train") / "data"
    render_set(folder, count=12, size=32, workers=0)
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "recipe.frnt=0"], "preset avatars64: recipe.frnt: Unexpected keyword argument"),
        (["--set", "recipe.front=much"], "recipe.front: Input should be a valid number"),
        (["--set", "recipe.front=-1"], "recipe.front must not be negative"),
        (["--set", "recipe.front"], "--set recipe.front: expected NAME=VALUE"),
        (["--set", "steps.x=1"], "--set steps.x=1: steps is a value"),
        (["--set", "recipe=[1"], "--set recipe=[1 is not YAML"),
        (["--set", "batch_size=0"], "batch_size must be at least 1, not 0"),
        (["--set", "jitter.probability=2"], "jitter.probability must be from 0 to 1, not 2"),
        (["--recipe", "published", "--set", "recipe.front=0"], "recipe.front: Unexpected keyword argument"),
        (["--init", "nowhere"], "no run at nowhere"),
        (["--precision", "fp8"], "'fp8' is not one of 'fp32', 'bf16'"),
        (["--accelerator", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
        (["--method", "stargan"], "'stargan' is not one of 'homomorph', 'cyclegan'"),
        (["--method", "cyclegan"], "--method cyclegan needs --attribute NAME"),
        (["--method", "cyclegan", "--attribute", "a", "--set", "recipe.front=0"], "recipe: Unexpected"),
        (
            ["--method", "cyclegan", "--attribute", "a", "--set", "generator=vit"],
            "generator must be resnet_6blocks or",
        ),
        (["--method", "cyclegan", "--attribute", "a", "--preset", "avatars64"], "attribute: Unexpected keyword"),
        (["--method", "cyclegan", "--attribute", "a", "--set", "ema=1"], "ema must be from 0 to below 1, not 1"),
        (["--preset", "cyclegan64"], "--preset cyclegan64 is for --method cyclegan"),
        (["--attribute", "smiling"], "attribute: Unexpected keyword argument"),
        (["--preset", "avatars32"], "there is no preset 'avatars32': give one of avatars128, avatars64, "),
        (["--preset", "nowhere.yaml"], "preset nowhere.yaml cannot be read"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(
    homomorph: Callable[..., Any], tmp_path: Path, words: list[str], said: str
) -> None:
    outcome = homomorph("train", tmp_path / "data", "--out", tmp_path / "run", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(homomorph: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    outcome = homomorph("train", data, "--out", tmp_path / "run", "--accelerator", "gpu")
    assert outcome.code == 2
    assert outcome.err == "homomorph: --accelerator gpu needs 1 GPU here, torch finds 0: take cpu or auto\n"
    assert not (tmp_path / "run").exists()


def test_a_preset_can_be_a_file_and_options_go_over_it(
    homomorph: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "picture_size: 32\nnetwork: {family: compact, feature_channels: 16, widths: [8, 12, 16]}\n"
        "batch_size: 4\nsteps: 9\nrecipe: {name: default, blended: [skin], keep: 2}\n"
        "method: homomorph\n"
    )
    words = ["--preset", preset, "--steps", 2, "--set", "recipe.front=0", "--set", "learning_rate=1e-4", "--workers", 0]
    outcome = homomorph("train", data, "--out", tmp_path / "run", *words)
    assert outcome.code == 0, outcome.err
    settings = json.loads((tmp_path / "run" / "training.json").read_text())["settings"]
    assert (settings["steps"], settings["preset"]["learning_rate"]) == (2, 1e-4)
    recipe = settings["recipe"]
    assert (recipe["blended"], recipe["keep"], recipe["front"]) == (["skin"], 2, 0)
    assert recipe["sweep"] == DefaultRecipe().sweep
    # A run that goes on must have the same.
    outcome = homomorph("train", data, "--out", tmp_path / "run", "--preset", preset, "--resume")
    assert outcome.code == 2
    assert "was trained with another preset, recipe, steps" in outcome.err


def test_progress_shows_the_terms_that_matter() -> None:
    displayed = _with_displayed_figures(Progress("training", 1, 2, dict.fromkeys([*TERMS, "pictures/s"], 1.0))).figures
    assert set(displayed) == {"reconstruction", "arrive", "labels", "front", "pictures/s"}


def test_a_cyclegan_is_trained_for_one_attribute(homomorph: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    words = ["--method", "cyclegan", "--set", "generator=unet_64", *SMALL_CYCLEGAN]
    outcome = homomorph("train", data, "--out", tmp_path / "none", *words, "--attribute", "wings")
    assert outcome.code == 2
    assert "the pictures have no attribute 'wings', but smiling, " in outcome.err
    assert not (tmp_path / "none").exists()
    outcome = homomorph("train", data, "--out", tmp_path / "run", *words, "--attribute", "smiling")
    assert outcome.code == 0
    assert f"homomorph export {tmp_path / 'run'} " in outcome.out.replace("\n", " ")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["method"], config["generator"]) == ("cyclegan", "unet_64")
    assert config["directions"] == ["smiling", "not_smiling"]


def test_a_cyclegan_is_trained_for_an_attribute_of_celebas_names(
    homomorph: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    for file in (tmp_path / "data" / "attributes.csv", tmp_path / "data" / "groups.yaml"):
        file.write_text(file.read_text().replace("moustache", "5_o_Clock_Shadow"))
    words = [*SMALL_CYCLEGAN, "--set", "picture_size=32", "--method", "cyclegan", "--attribute", "5_o_Clock_Shadow"]
    outcome = homomorph("train", tmp_path / "data", "--out", tmp_path / "run", *words)
    assert outcome.code == 0, outcome.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["directions"] == ["a_5_o_clock_shadow", "not_a_5_o_clock_shadow"]


def test_a_file_in_the_way_is_one_line(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = homomorph("render", tmp_path / "file" / "data", "--count", 2)
    assert outcome.code == 2
    assert str(tmp_path / "file") in outcome.err
    assert outcome.err.count("\n") == 1
