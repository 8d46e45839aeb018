"""Commands that are killed at random moments leave nothing half-written, and the next command works."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.run import load_model, save_model
from homomorph_client.files import sha256

NETWORK = CompactConfig(
    feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0), branch_width=8
)
LABELLED = 80
"""Pictures of the set for `label` and `train`, of which `label` finds a quarter without labels."""
PICTURES = 40
"""Pictures that `render` draws."""
PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""In the public domain, and part of matplotlib."""
PHOTOGRAPHS = 3
"""Copies of it that `align` aligns."""
FRAMES = 5
"""Frames of a morph."""
PRESET = """
picture_size: 32
network: {family: compact, feature_channels: 16, widths: [8, 12, 16]}
batch_size: 4
steps: 3
recipe: {name: default}
method: homomorph
"""
Start = Callable[..., BaseProcess]


def finish(process: BaseProcess) -> None:
    """Wait until a command has ended well."""
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, start_command: Start) -> Path:
    """Inputs of the commands: sets labelled in whole and in part, photographs, a preset, runs with different groups."""
    folder = tmp_path_factory.mktemp("material")
    finish(start_command("render", folder / "set", "--count", LABELLED, "--size", 32, "--workers", 0))
    shutil.copytree(folder / "set", folder / "unlabelled")
    table = folder / "unlabelled" / "attributes.csv"
    head, *rows = table.read_text().splitlines()
    unknown = [row.partition(",")[0] + "," * row.count(",") for row in rows[:20]]
    table.write_text("\n".join([head, *unknown, *rows[20:]]) + "\n")
    for index in range(PHOTOGRAPHS):
        (folder / "photographs").mkdir(exist_ok=True)
        shutil.copy(PHOTOGRAPH, folder / "photographs" / f"{index}.jpg")
    (folder / "preset.yaml").write_text(PRESET)
    for run, group in (("old_run", "hair"), ("new_run", "hat")):
        save_model(folder / run, MorphModel(ModelConfig({group: (group,)}, 32, NETWORK)))
    return folder


def export_words(material: Path, place: Path) -> list[object]:
    """Export one run where the other one was exported before."""
    run = material / ("new_run" if place.exists() else "old_run")
    return ["export", run, "--repository", place, "--no-onnx"]


def train_words(material: Path, place: Path) -> list[object]:
    """Start a training, or resume it if it has a state."""
    resume = ["--resume"] if (place / "training.safetensors").exists() else []
    words = ["--preset", material / "preset.yaml", "--workers", 0, "--checkpoint-every", 1]
    return ["train", material / "set", "--out", place, *words, *resume]


def render_words(material: Path, place: Path) -> list[object]:
    """Render a small set."""
    return ["render", place, "--count", PICTURES, "--size", 32, "--workers", 0]


def label_words(material: Path, place: Path) -> list[object]:
    """Label the set that is labelled in part."""
    return ["label", material / "unlabelled", "--out", place, "--size", 16, "--steps", 4]


def align_words(material: Path, place: Path) -> list[object]:
    """Align a folder of photographs."""
    return ["align", material / "photographs", "--out", place, "--size", 64]


def batch_words(material: Path, place: Path) -> list[object]:
    """Edit the pictures of a set."""
    words = ["--run", "avatars64", "--set", "glasses=round_glasses", "--steps", 2]
    return ["batch", material / "set" / "images", "--out", place, *words]


def morph_words(material: Path, place: Path) -> list[object]:
    """Morph two pictures into a folder of frames."""
    pictures = sorted((material / "set" / "images").iterdir())[:2]
    return ["morph", *pictures, "--out", place, "--run", "avatars64", "--steps", FRAMES]


def check_export(place: Path) -> None:
    """All files are of the same export, and complete."""
    manifest = json.loads((place / "manifest.json").read_text())
    files = {str(path.relative_to(place)): sha256(path) for path in place.rglob("*") if path.is_file()}
    del files["manifest.json"]
    assert files == manifest["files"]


def check_train(place: Path) -> None:
    """A run with a configuration can be loaded."""
    if (place / "config.json").exists():
        load_model(place)


def check_render(place: Path) -> None:
    """A set has all pictures and tables."""
    assert len(list((place / "images").iterdir())) == PICTURES
    assert {"attributes.csv", "groups.yaml"} <= {path.name for path in place.iterdir()}


def check_label(place: Path) -> None:
    """A table has all rows, and its accuracy beside it."""
    assert len(place.read_text().splitlines()) == LABELLED + 1
    assert json.loads(place.with_suffix(".json").read_text())["pictures"] == LABELLED


def check_pictures(folder: Path) -> None:
    """All pictures of a folder can be read to their ends; a hidden file is what a killed command was writing."""
    for path in folder.rglob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()


def check_align(place: Path) -> None:
    """A folder has all pictures."""
    assert len(list((place / "images").iterdir())) == PHOTOGRAPHS
    check_pictures(place)


def check_batch(place: Path) -> None:
    """All results are whole, and their settings stand beside them."""
    results = {path.name for path in place.iterdir() if not path.name.startswith(".")}
    assert not results or "batch.json" in results
    check_pictures(place)


def check_morph(place: Path) -> None:
    """A folder has all frames."""
    assert len(list(place.iterdir())) == FRAMES
    check_pictures(place)


@dataclass(frozen=True)
class Command:
    """A command that is killed."""

    words: Callable[[Path, Path], list[object]]
    """Return its words, of the material and the place that it writes to."""
    check: Callable[[Path], None]
    """Check that nothing at the place is half-written."""
    begun: bool = False
    """Whether it begins with what a whole run has written."""
    repeats: bool = False
    """Whether it takes a place where something is; the others refuse to replace it."""


COMMANDS = {
    "export": Command(export_words, check_export, begun=True, repeats=True),
    "train": Command(train_words, check_train, repeats=True),
    "render": Command(render_words, check_render),
    "label": Command(label_words, check_label),
    "align": Command(align_words, check_align),
    "batch": Command(batch_words, check_batch, repeats=True),
    "morph": Command(morph_words, check_morph),
}


@dataclass(frozen=True)
class WholeRun:
    """A command that was not killed."""

    command: Command
    output: Path
    duration_s: float


@pytest.fixture(scope="module", params=COMMANDS)
def whole_run(
    request: pytest.FixtureRequest, material: Path, tmp_path_factory: pytest.TempPathFactory, start_command: Start
) -> WholeRun:
    """Run one of the commands to its end."""
    command = COMMANDS[request.param]
    place = tmp_path_factory.mktemp("whole") / "place"
    begin_s = time.monotonic()
    finish(start_command(*command.words(material, place)))
    return WholeRun(command, place, time.monotonic() - begin_s)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("kill", range(13))
def test_nothing_is_half_written_and_the_next_command_works(
    material: Path, whole_run: WholeRun, tmp_path: Path, start_command: Start, request: pytest.FixtureRequest, kill: int
) -> None:
    command = whole_run.command
    place = tmp_path / "places" / "place"
    place.parent.mkdir()
    if command.begun:
        shutil.copytree(whole_run.output, place)
    moment_s = random.Random(request.node.name).uniform(0, whole_run.duration_s)
    process = start_command(*command.words(material, place))
    process.join(moment_s)
    process.kill()
    process.join()
    print(f"killed after {moment_s:.1f} of {whole_run.duration_s:.1f} s: {process.exitcode}", file=sys.stderr)
    assert process.exitcode in (-9, 0)
    if place.exists():
        command.check(place)
    if not place.exists() or command.repeats:
        finish(start_command(*command.words(material, place)))
        command.check(place)
    assert {path.name for path in place.parent.iterdir()} <= {"place", "place.json"}
