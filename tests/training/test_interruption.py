"""A training that is really killed, in a process of its own, and goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from homomorph.data.labels import LabelledPictures
from homomorph.runs.state import STATE_FILE
from homomorph.training.interruption import Interruption
from homomorph.training.recipe import Preset, Recipe
from homomorph.training.trainer import train

_KILLED = """
import os, signal, sys
from homomorph.training import recipe
from homomorph.models.config import CompactConfig
from homomorph.training.step import TrainingStep
from homomorph_cli.main import run

recipe.PRESETS["tiny"] = {preset!r}
take = TrainingStep.__call__

def killed(self, *arguments, step, **options):
    if step == 3:  # in the middle of a step, and the loader's process too, as a terminal does
        os.killpg(os.getpgrp(), signal.{signal})
    return take(self, *arguments, step=step, **options)

TrainingStep.__call__ = killed
sys.argv = ["homomorph", "train", {data!r}, "--out", {out!r}, "--preset", "tiny", "--steps", "6"]
run()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_killed_run_keeps_its_last_step_and_ends_as_an_uninterrupted_one(
    avatars_folder: Path, data: LabelledPictures, tiny: Preset, tmp_path: Path, name: str
) -> None:
    script = "from homomorph.training.recipe import Jitter, Preset\n" + _KILLED.format(
        preset=tiny, signal=name, data=str(avatars_folder), out=str(tmp_path / "parts")
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, start_new_session=True, check=False
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "homomorph: interrupted\n"
    for folder, resume in (("parts", True), ("whole", False)):
        reports = list(train(data, tmp_path / folder, preset=tiny, recipe=Recipe(), steps=6, resume=resume, workers=0))
        if resume:
            assert [report.step for report in reports] == [5, 6]
    whole, parts = (load_file(tmp_path / folder / STATE_FILE) for folder in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for key in whole:
        assert torch.equal(whole[key], parts[key]), key


def test_the_second_ctrl_c_does_not_wait() -> None:
    earlier = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.noted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is earlier


def test_a_run_that_is_refused_does_not_wait_for_its_worker(tmp_path: Path) -> None:
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    for index in range(40):
        (images / f"{index}.png").write_bytes(b"not a picture")
    rows = "".join(f"{index}.png,{index % 2}\n" for index in range(40))
    (tmp_path / "data" / "attributes.csv").write_text("image,p\n" + rows)
    (tmp_path / "data" / "groups.yaml").write_text("x: [p]\n")
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()"]
    result = subprocess.run(
        [*command, "train", str(tmp_path / "data"), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "is not a picture that can be read" in result.stderr.splitlines()[-1]
