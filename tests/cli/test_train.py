"""`homomorph train`: what it refuses, in one line and before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from homomorph.training.recipe import Recipe


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "l_pth=0"], "--set l_pth=0: the recipe has no 'l_pth', but warmup, "),
        (["--set", "l_path=much"], "--set l_path=much: 'much' is no number such as "),
        (["--set", "path_steps=1.5"], "'1.5' is no number such as "),
        (["--set", "path_steps=0"], "recipe.path_steps must be at least 1, not 0"),
        (["--set", "warmup=2"], "recipe.warmup is a share of the steps"),
        (["--init", "nowhere"], "no run at nowhere"),
        (["--precision", "fp8"], "--precision must be fp32 or bf16, not 'fp8'"),
        (["--accelerator", "tpu"], "--accelerator must be auto or cpu or gpu, not 'tpu'"),
        (["--method", "stargan"], "--method must be homomorph or cyclegan, not 'stargan'"),
        (["--method", "cyclegan"], "--method cyclegan needs --attribute NAME"),
        (["--method", "cyclegan", "--attribute", "a", "--set", "l_path=0"], "--set is not offered with --method"),
        (["--method", "cyclegan", "--attribute", "a", "--phi", "vgg19"], "--phi is not offered with --method"),
        (["--method", "cyclegan", "--attribute", "a", "--generator", "vit"], "--generator must be resnet_6blocks or "),
        (["--method", "cyclegan", "--attribute", "a", "--preset", "avatars64"], "--preset must be cyclegan64 or "),
        (["--attribute", "smiling"], "--attribute is for --method cyclegan"),
        (["--preset", "avatars32"], "--preset must be avatars64 or avatars128 or celeba128 or published"),
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
def test_a_gpu_that_is_not_there_is_asked_for_in_vain(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    assert homomorph("render", tmp_path / "data", "--count", 12, "--size", 32).code == 0
    outcome = homomorph("train", tmp_path / "data", "--out", tmp_path / "run", "--accelerator", "gpu")
    assert outcome.code == 2
    assert outcome.err == "homomorph: --accelerator gpu needs 1 GPU here, torch finds 0: take cpu or auto\n"
    assert not (tmp_path / "run").exists()


def test_options_change_what_recipe_and_preset_say(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    assert homomorph("render", tmp_path / "data", "--count", 12, "--size", 32).code == 0
    outcome = homomorph(
        "train",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
        "--set",
        "l_path=0",
        "--set",
        "path_steps=5",
        "--precision",
        "bf16",
        "--jitter",
        "0",
        "--dry-run",
    )
    settings = json.loads(outcome.out[outcome.out.index("\n{") :])
    assert settings["precision"] == "bf16"
    assert settings["preset"]["jitter"]["probability"] == 0
    assert settings["preset"]["jitter"]["shift"] > 0
    resolved = settings["recipe"]
    assert resolved == vars(Recipe(l_path=0.0, path_steps=5))
    assert isinstance(resolved["path_steps"], int)


def test_a_cyclegan_is_trained_for_one_attribute(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    assert homomorph("render", tmp_path / "data", "--count", 12, "--size", 64).code == 0
    words = ["--method", "cyclegan", "--generator", "unet_64", "--steps", 1]
    outcome = homomorph("train", tmp_path / "data", "--out", tmp_path / "none", *words, "--attribute", "wings")
    assert outcome.code == 2
    assert "the pictures have no attribute 'wings', but smiling, " in outcome.err
    assert not (tmp_path / "none").exists()
    outcome = homomorph("train", tmp_path / "data", "--out", tmp_path / "run", *words, "--attribute", "smiling")
    assert outcome.code == 0
    assert f"homomorph export {tmp_path / 'run'} " in outcome.out.replace("\n", " ")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["method"], config["generator"]) == ("cyclegan", "unet_64")
    assert config["directions"] == ["smiling", "not_smiling"]


def test_a_file_in_the_way_is_one_line(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = homomorph("render", tmp_path / "file" / "data", "--count", 2)
    assert outcome.code == 2
    assert str(tmp_path / "file") in outcome.err
    assert outcome.err.count("\n") == 1
