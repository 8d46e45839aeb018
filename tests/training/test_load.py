"""`homomorph.load`: shipped models in one line, without a server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import homomorph
from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.morph import MorphModel
from homomorph.runs.run import load_model, resolve_run, save_model
from homomorph_client import LabelError

ROOT = Path(__file__).parents[2]
SOURCE, TARGET = (str(ROOT / "docs" / f"{name}.png") for name in ("source", "target"))


def test_import_stays_light() -> None:
    code = "import sys, homomorph; homomorph.load; print({'torch', 'homomorph.local'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_importing_asks_no_server_for_updates() -> None:
    code = (
        "import urllib.request as u; u.OpenerDirector.open = lambda *_, **__: print('asked'); "
        "import homomorph, albumentations"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""


def test_a_shipped_model_morphs() -> None:
    model = homomorph.load("avatars64")
    frames = model.morph(SOURCE, TARGET, steps=9)
    assert frames.shape == (9, 64, 64, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 5
    assert model.groups[-1] == "residual"


def test_pictures_are_encoded_once_while_a_slider_moves() -> None:
    model = homomorph.load("avatars64")
    encoded: list[int] = []
    model._model.encoder.register_forward_hook(lambda *_: encoded.append(1))
    half = model.morph(SOURCE, TARGET, strengths={"skin": 0.5})
    model.morph(SOURCE, TARGET, strengths={"skin": 0.6})
    assert len(encoded) == 1
    back = model.morph(TARGET, SOURCE, strengths={"skin": 0.5})
    assert len(encoded) == 2
    assert (half != back).any()
    assert (model.morph(SOURCE, TARGET, strengths={"skin": 0.5}) == half).all()


def test_runs_that_cannot_do_it_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run at"):
        homomorph.load("absent")
    with pytest.raises(CheckpointError, match="CycleGAN's run, which does not morph"):
        homomorph.load("smiling64")
    save_model(tmp_path, MorphModel(load_model(resolve_run("avatars64")).config))
    with pytest.raises(LabelError, match=r"has no label_features\.safetensors"):
        homomorph.load(tmp_path).edit(SOURCE, {"glasses": []})


@pytest.mark.parametrize("device", ["gpu", "meta:x", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
        homomorph.load("avatars64", device=device)


@pytest.mark.parametrize(
    ("words", "width"),
    [
        (["morph", SOURCE, TARGET, "--steps", "3", "--set", "hair_colour=1"], 3 * 64),
        (["edit", SOURCE, "--set", "hair_colour=blond_hair", "--steps", "2"], 2 * 64),
        (["grid", SOURCE, TARGET, "--rows", "skin", "--columns", "hair_colour", "--size", "2"], 2 * 64),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else None,
)
def test_commands_compute_here_with_run(
    homomorph: Callable[..., Any], tmp_path: Path, words: list[str], width: int
) -> None:
    outcome = homomorph(*words, "--out", tmp_path / "out.png", "--run", "avatars64")
    assert outcome.code == 0, outcome.err
    assert Image.open(tmp_path / "out.png").width == width
    refused = homomorph(*words, "--out", tmp_path / "other.png", "--run", "avatars64", "--url", "localhost:1")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--run computes here" in refused.err
