"""`homomorph ui` over a real server."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from homomorph_client.pictures import fit_picture

pytestmark = [pytest.mark.server, pytest.mark.slow]

DOCS = Path(__file__).parents[2] / "docs"
SOURCE, TARGET = ((DOCS / f"{name}.png").read_bytes() for name in ("source", "target"))


@pytest.mark.parametrize("finds_a_server", [True, False], ids=["--url", "starts one"])
def test_the_page_morphs_and_stops(served: Any, finds_a_server: bool) -> None:
    """With --url it uses that server; without, it starts one and stops it."""
    words = ["--url", served.url] if finds_a_server else ["--repository", str(served.repository)]
    command = [Path(sys.executable).parent / "homomorph", "ui", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        found = re.search(r"http://\S+", started.stdout.readline())
        assert found, started.communicate()[1]
        described = json.load(urllib.request.urlopen(f"{found.group()}/model"))
        assert described["groups"] == ["hair", "glasses", "residual"]
        assert described["where"].startswith("Triton at 127.0.0.1:")
        if finds_a_server:
            assert described["where"] == f"Triton at {served.url}"
        assert np.abs(frame(found.group()).astype(int) - expected(served)).max() <= 1
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate(timeout=60)
        assert started.returncode == 0, errors
        assert "Traceback" not in errors


def frame(page: str) -> npt.NDArray[np.uint8]:
    source, target = (base64.b64encode(picture).decode() for picture in (SOURCE, TARGET))
    body = {"source": source, "target": target, "strengths": {"hair": 0.5, "glasses": 1}}
    answer = urllib.request.urlopen(f"{page}/frames", json.dumps(body).encode())
    assert answer.headers["x-frames"] == "1,64,64"
    return np.frombuffer(answer.read(), np.uint8).reshape(64, 64, 3)


def expected(served: Any) -> npt.NDArray[np.uint8]:
    source, target = (fit_picture(picture, 64)[None] for picture in (SOURCE, TARGET))
    pixels: npt.NDArray[np.uint8] = served.expected(source, target, np.array([[[0.5, 1, 0]]], np.float32))[0, 0]
    return pixels
