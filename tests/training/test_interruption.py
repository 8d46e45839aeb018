"""A training that is really killed, in a process of its own, and goes on as if nothing had been."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from homomorph.data.labels import LabelledPictures
from homomorph.progress import Progress
from homomorph.runs.state import STATE_FILE
from homomorph.training import loop
from homomorph.training.interruption import Interruption
from homomorph.training.methods import make_method
from homomorph.training.settings import MorphPreset

_KILLED = """
import os, signal, sys
from homomorph.training.default.method import DefaultMethod
from homomorph_cli.main import run

draw = DefaultMethod.draw

def killed(self, batch, step, generator):
    if step == 3:  # in the middle of a step, and the loader's process too, as a terminal does
        os.killpg(os.getpgrp(), signal.{signal})
    return draw(self, batch, step, generator)

DefaultMethod.draw = killed
sys.argv = ["homomorph", "train", {data!r}, "--out", {out!r}, "--preset", {preset!r}]
run()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_killed_run_keeps_its_last_step_and_ends_as_an_uninterrupted_one(
    avatars_folder: Path, data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, name: str
) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(dataclasses.asdict(tiny)))  # which is YAML too
    script = _KILLED.format(preset=str(preset), signal=name, data=str(avatars_folder), out=str(tmp_path / "parts"))
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, start_new_session=True, check=False
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.splitlines()[-1] == "homomorph: interrupted"
    assert "Traceback" not in ended.stderr
    for folder, resume in (("parts", True), ("whole", False)):
        reports: list[Progress] = []
        loop.train(make_method(data, tiny), tmp_path / folder, steps=6, resume=resume, workers=0, report=reports.append)
        if resume:
            assert [report.done for report in reports] == [5, 6]
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
