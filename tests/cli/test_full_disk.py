"""A file that cannot be written to its end: one line, code 2, nothing left. A limit on sizes stands for a full disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.runs.run import save_model

PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""In the public domain, and part of matplotlib."""


@pytest.fixture
def limited(start_command: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run a command that can write no file of more than `limit` bytes; return its code and what it said to stderr."""
    errors = tmp_path_factory.mktemp("errors") / "errors"

    def command(*words: object, limit: int | None = 2000) -> tuple[int | None, str]:
        process = start_command(*words, largest_file=limit, errors=errors)
        process.join()
        return process.exitcode, errors.read_text()

    return command


def check_refused(outcome: tuple[int | None, str], name: str) -> None:
    """Check that a command ended with one line about a file, and code 2."""
    code, errors = outcome
    assert code == 2, errors
    assert "Traceback" not in errors
    (line,) = (line for line in errors.splitlines() if line.startswith("homomorph: "))
    assert name in line
    assert "cannot be written" in line


@pytest.mark.parametrize("command", ["render", "import", "translate", "morph", "align", "export"])
def test_what_cannot_be_written_leaves_nothing(limited: Callable[..., Any], tmp_path: Path, command: str) -> None:
    model = CycleGAN(CycleGANConfig(("there",), "resnet_6blocks", 2, 64))
    torch.save(model.generators["there"].state_dict(), tmp_path / "net.pth")
    save_model(tmp_path / "run", model)
    (tmp_path / "photographs").mkdir()
    shutil.copy(PHOTOGRAPH, tmp_path / "photographs")
    words: dict[str, list[object]] = {
        "render": ["render", tmp_path / "out", "--count", 2, "--size", 256, "--workers", 0],
        "import": ["import", "cyclegan", tmp_path / "net.pth", "--out", tmp_path / "out"],
        "translate": [
            *("translate", "docs/source.png", "--steps", "smiling"),
            *("--run", "smiling64", "--out", tmp_path / "out.png"),
        ],
        "morph": [
            *("morph", "docs/source.png", "docs/target.png", "--steps", 2),
            *("--run", "avatars64", "--out", tmp_path / "out.png"),
        ],
        "align": ["align", tmp_path / "photographs", "--out", tmp_path / "out", "--size", 64],
        "export": ["export", tmp_path / "run", "--repository", tmp_path / "out", "--no-onnx"],
    }
    # An export's first large file has more than 25,000 bytes.
    check_refused(limited(*words[command], limit=25_000 if command == "export" else 2000), "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "photographs", "run"]


def test_a_batch_that_cannot_write_a_result_goes_on_later(limited: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("source.png", "target.png"):
        shutil.copy(Path("docs") / name, tmp_path / "pictures")
    words = ["batch", tmp_path / "pictures", "--out", tmp_path / "out", "--run", "avatars64", "--steps", 2]
    words += ["--set", "glasses=round_glasses"]
    check_refused(limited(*words), "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["batch.json"]
    assert limited(*words, limit=None)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["batch.json", "source.png", "target.png"]


@pytest.mark.slow
def test_a_table_of_labels_that_cannot_be_written_leaves_nothing(limited: Callable[..., Any], tmp_path: Path) -> None:
    words = ["render", tmp_path / "set", "--count", 100, "--size", 64, "--workers", 0]
    assert limited(*words, limit=None)[0] == 0
    table = tmp_path / "set" / "attributes.csv"
    head, *rows = table.read_text().splitlines()
    unknown = [row.partition(",")[0] + "," * row.count(",") for row in rows[:40]]
    table.write_text("\n".join([head, *unknown, *rows[40:]]) + "\n")
    images = tmp_path / "set" / "images"
    for index in range(600):  # so that the table is larger than a batch, which passes through /dev/shm
        os.link(images / rows[0].partition(",")[0], images / f"more{index}.png")
    words = ["label", tmp_path / "set", "--steps", 2, "--size", 16, "--out", tmp_path / "out"]
    check_refused(limited(*words, limit=60_000), "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
