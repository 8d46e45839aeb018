"""Commands that are killed at random moments leave nothing half-written, and the next one works."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from homomorph_cli.main import run; run()", *map(str, words)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_render_leaves_no_half_set(tmp_path: Path) -> None:
    words = command("render", tmp_path / "set", "--count", 400, "--size", 32, "--workers", 0)
    begin = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    whole_s = time.monotonic() - begin
    pictures = sorted(path.name for path in (tmp_path / "set" / "images").iterdir())
    chance = random.Random(0)
    for attempt in range(6):
        place = tmp_path / f"killed{attempt}"
        process = subprocess.Popen(command("render", place, "--count", 400, "--size", 32, "--workers", 0))
        time.sleep(chance.uniform(0.5, 1.1) * whole_s)
        process.kill()
        process.wait()
        assert not place.exists() or len(list((place / "images").iterdir())) == 400
    place = tmp_path / "killed0"
    if not place.exists():
        subprocess.run(command("render", place, "--count", 400, "--size", 32, "--workers", 0), check=True)
    assert sorted(path.name for path in (place / "images").iterdir()) == pictures
    assert not list(tmp_path.glob(".killed0*"))
