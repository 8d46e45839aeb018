"""A file that cannot be written to its end: one line, code 2, nothing left. A limit on sizes stands for a full disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig

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


@pytest.mark.parametrize("command", ["render", "import", "morph"])
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, command: str) -> None:
    model = CycleGAN(CycleGANConfig(("there",), "resnet_6blocks", 2, 64))
    torch.save(model.generators["there"].state_dict(), tmp_path / "net.pth")
    words: dict[str, list[object]] = {
        "render": ["render", tmp_path / "out", "--count", 2, "--size", 256, "--workers", 0],
        "import": ["import", "cyclegan", tmp_path / "net.pth", "--out", tmp_path / "out"],
        "morph": [
            *("translate", "docs/source.png", "--steps", "smiling"),
            *("--run", "smiling64", "--out", tmp_path / "out.png"),
        ],
    }
    outcome = limited(*words[command])
    assert outcome.returncode == 2, outcome.stderr
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("homomorph: ")]
    assert len(lines) == 1
    assert "out" in lines[0]
    assert "cannot be written" in lines[0]
    assert "Traceback" not in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
