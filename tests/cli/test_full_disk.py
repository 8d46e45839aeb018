"""A file that cannot be written to its end: one line, code 2, nothing left. A limit on sizes stands for a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.runs.run import save_model

LIMITED = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from homomorph_cli.main import run
sys.argv = ["homomorph", *sys.argv[1:]]
run()
"""


def limited(*words: object, limit: int = 2000) -> subprocess.CompletedProcess[str]:
    """Run a command that can write no file of more than `limit` bytes."""
    command = [sys.executable, "-c", LIMITED.format(limit=limit), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def check_refused(outcome: subprocess.CompletedProcess[str], name: str) -> None:
    """Check that a command ended with one line about a file, and code 2."""
    assert outcome.returncode == 2, outcome.stderr
    assert "Traceback" not in outcome.stderr
    (line,) = (line for line in outcome.stderr.splitlines() if line.startswith("homomorph: "))
    assert name in line
    assert "cannot be written" in line


@pytest.mark.parametrize("command", ["render", "import", "translate", "export"])
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, command: str) -> None:
    model = CycleGAN(CycleGANConfig(("there",), "resnet_6blocks", 2, 64))
    torch.save(model.generators["there"].state_dict(), tmp_path / "net.pth")
    save_model(tmp_path / "run", model)
    words: dict[str, list[object]] = {
        "render": ["render", tmp_path / "out", "--count", 2, "--size", 256, "--workers", 0],
        "import": ["import", "cyclegan", tmp_path / "net.pth", "--out", tmp_path / "out"],
        "translate": [
            *("translate", "docs/source.png", "--steps", "smiling"),
            *("--run", "smiling64", "--out", tmp_path / "out.png"),
        ],
        "export": ["export", tmp_path / "run", "--repository", tmp_path / "out", "--no-onnx"],
    }
    # An export's first large file has more than 25,000 bytes.
    check_refused(limited(*words[command], limit=25_000 if command == "export" else 2000), "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "run"]


@pytest.mark.slow
def test_a_table_of_labels_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    words = ["render", tmp_path / "set", "--count", 100, "--size", 64, "--workers", 0]
    assert limited(*words, limit=2**30).returncode == 0
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
