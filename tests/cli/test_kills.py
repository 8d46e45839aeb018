"""Commands that are killed at random moments leave nothing half-written, and the next command works."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

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
PRESET = """
picture_size: 32
network: {family: compact, feature_channels: 16, widths: [8, 12, 16]}
batch_size: 4
steps: 3
recipe: {name: default}
method: homomorph
"""
# Processes start with torch imported, so that kills come while a command works and not while it imports.
_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    [
        *("dicebear_styles", "homomorph_cli.main", "homomorph_export.exporter", "homomorph.data.render_set"),
        *("homomorph.training.labeller", "homomorph.training.loop", "homomorph.training.methods"),
    ]
)


def start(*words: object) -> multiprocessing.process.BaseProcess:
    """Start a command in a process of its own."""
    argv = ["homomorph", *map(str, words)]
    code = f"import sys; sys.argv = {argv!r}; from homomorph_cli.main import run; run()"
    process = _forkserver.Process(target=exec, args=(code,))
    process.start()
    return process


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of the commands: a labelled set, one labelled in part, a preset and two runs with different groups."""
    folder = tmp_path_factory.mktemp("material")
    process = start("render", folder / "set", "--count", LABELLED, "--size", 32, "--workers", 0)
    process.join()
    assert process.exitcode == 0
    shutil.copytree(folder / "set", folder / "unlabelled")
    table = folder / "unlabelled" / "attributes.csv"
    head, *rows = table.read_text().splitlines()
    unknown = [row.partition(",")[0] + "," * row.count(",") for row in rows[:20]]
    table.write_text("\n".join([head, *unknown, *rows[20:]]) + "\n")
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


COMMANDS: dict[str, tuple[Callable[[Path, Path], list[object]], Callable[[Path], None]]] = {
    "export": (export_words, check_export),
    "train": (train_words, check_train),
    "render": (render_words, check_render),
    "label": (label_words, check_label),
}


@dataclass(frozen=True)
class WholeRun:
    """A command that was not killed."""

    name: str
    output: Path
    duration_s: float


@pytest.fixture(scope="module", params=COMMANDS)
def whole_run(request: pytest.FixtureRequest, material: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """Run one of the commands to its end."""
    place = tmp_path_factory.mktemp("whole") / "place"
    begin_s = time.monotonic()
    process = start(*COMMANDS[request.param][0](material, place))
    process.join()
    assert process.exitcode == 0
    return WholeRun(request.param, place, time.monotonic() - begin_s)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("kill", range(13))
def test_nothing_is_half_written_and_the_next_command_works(
    material: Path, whole_run: WholeRun, tmp_path: Path, kill: int
) -> None:
    words, check = COMMANDS[whole_run.name]
    place = tmp_path / "places" / "place"
    place.parent.mkdir()
    if whole_run.name == "export":
        shutil.copytree(whole_run.output, place)
    moment_s = random.Random(f"{whole_run.name} {kill}").uniform(0, whole_run.duration_s)
    process = start(*words(material, place))
    process.join(moment_s)
    process.kill()
    process.join()
    print(f"killed after {moment_s:.1f} of {whole_run.duration_s:.1f} s: {process.exitcode}", file=sys.stderr)
    assert process.exitcode in (-9, 0)
    if place.exists():
        check(place)
    if not place.exists() or whole_run.name in ("export", "train"):  # the others refuse to replace their output
        again = start(*words(material, place))
        again.join()
        assert again.exitcode == 0
        check(place)
    assert {path.name for path in place.parent.iterdir()} <= {"place", "place.json"}
