"""What the page's server answers, without a browser."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homomorph_client.pictures import fit_picture, load_picture
from homomorph_ui import app
from homomorph_ui.serve import listen

DOCS = Path(__file__).parents[2] / "docs"
SOURCE, TARGET = (base64.b64encode((DOCS / f"{name}.png").read_bytes()).decode() for name in ("source", "target"))


def call(
    page: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(page, timeout=20)
    content = json.dumps(body) if isinstance(body, dict) else body
    connection.request("GET" if body is None else "POST", path, content, headers or {})
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def test_it_describes_the_model_and_opens_with_pictures(page: str) -> None:
    status, _, content = call(page, "/model")
    described = json.loads(content)
    assert status == 200
    assert described["groups"] == ["red", "green", "residual"]
    assert (described["where"], described["max_strength"]) == ("a blender", 2)
    opened = load_picture(base64.b64decode(described["pictures"][0]))
    assert np.array_equal(opened, load_picture(DOCS / "source.png"))


def test_frames_follow_the_strengths_and_say_what_took_time(page: str) -> None:
    body = {"source": SOURCE, "target": TARGET, "strengths": {"red": 1.0, "green": 0.5}, "steps": 3}
    status, headers, content = call(page, "/frames", body)
    assert (status, headers["x-frames"]) == (200, "3,64,64")
    assert re.fullmatch(r"receive;dur=[\d.]+, model;dur=[\d.]+", headers["server-timing"])
    frames = np.frombuffer(content, np.uint8).reshape(3, 64, 64, 3)
    source, target = (fit_picture(DOCS / f"{name}.png", 64) for name in ("source", "target"))
    assert np.array_equal(frames[0], source)
    assert np.array_equal(frames[2][:, :, 0], target[:, :, 0])
    assert np.array_equal(frames[2][:, :, 2], source[:, :, 2])


def test_details_stay_where_the_frame_shows_a_picture(page: str) -> None:
    body = {"source": SOURCE, "target": TARGET, "strengths": dict.fromkeys(("red", "green", "residual"), 1.0)}
    status, headers, content = call(page, "/frames", {**body, "steps": 2, "details": True})
    assert (status, headers["x-frames"]) == (200, "2,256,256")
    frames = np.frombuffer(content, np.uint8).reshape(2, 256, 256, 3)
    for frame, name in zip(frames, ("source", "target"), strict=True):
        assert np.array_equal(frame, load_picture(DOCS / f"{name}.png"))


def test_labels_edit_without_a_second_picture(page: str) -> None:
    body = {"source": SOURCE, "labels": {"red": ["light"]}, "strengths": {"red": 1.0}}
    status, _, content = call(page, "/frames", body)
    assert status == 200
    assert (np.frombuffer(content, np.uint8).reshape(64, 64, 3)[:, :, 0] == 255).all()


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("gif", b"GIF89a"), ("mp4", b"\0\0\0 ftyp")])
def test_morphs_are_written_as_files(page: str, kind: str, start: bytes) -> None:
    body = {"source": SOURCE, "target": TARGET, "strengths": {"red": 1.0}, "steps": 3}
    status, _, content = call(page, f"/files/{kind}", body)
    assert status == 200
    assert content.startswith(start)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/pictures", b"This is no picture.", "is not a picture that can be read"),
        ("/pictures", b"", "is not a picture: it is empty"),
        ("/frames", b"{", "the request of the page cannot be read"),
        ("/frames", {"source": SOURCE, "target": TARGET, "strengths": {"red": "much"}}, "strengths.red"),
        ("/frames", {"source": SOURCE, "strengths": {"red": 1.0}}, "choose a second picture"),
        ("/frames", {"source": SOURCE, "target": TARGET, "strengths": {"blue": 1.0}}, "there is no group 'blue'"),
        ("/frames", {"source": SOURCE, "target": TARGET, "strengths": {"red": 3.0}}, "must lie in [0, 2]"),
        ("/frames", {"source": SOURCE, "target": TARGET, "strengths": {"red": 1.0}, "steps": 10**9}, "steps must be"),
        ("/files/exe", {"source": SOURCE, "target": TARGET, "strengths": {"red": 1.0}}, "cannot be written as 'exe'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(page: str, path: str, body: Any, said: str) -> None:
    status, _, content = call(page, path, body)
    error = json.loads(content)["error"]
    assert status == 400
    assert said in error
    assert "\n" not in error


def test_uploads_are_bounded(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 2**20)
    status, _, content = call(page, "/pictures", bytes(2**20 + 1))
    assert status == 400
    assert "more than 1 MiB" in json.loads(content)["error"]


def test_a_server_that_is_away_can_be_asked_again(page: str, blender: Any) -> None:
    blender.is_down = True
    body = {"source": SOURCE, "target": TARGET, "strengths": {"red": 1.0}}
    for path, sent in (("/model", None), ("/frames", body)):
        status, _, content = call(page, path, sent)
        assert (status, json.loads(content)["error"]) == (503, "no server answers at 127.0.0.1:1")
    blender.is_down = False
    assert call(page, "/frames", body)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:9000"}, 200),  # a tunnel from another port
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 200),
        ({"Origin": "http://localhost:3000"}, 403),  # another page of this machine
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.org"}, 403),  # a foreign name that leads to this machine
        ({"Host": "127.0.0.1.example.org:7860"}, 403),
        ({"Host": "[::1"}, 403),
    ],
)
def test_other_web_pages_are_refused(page: str, blender: Any, headers: dict[str, str], status: int) -> None:
    body = {"source": SOURCE, "target": TARGET, "strengths": {"red": 1.0}}
    assert call(page, "/frames", body, headers)[0] == status
    assert blender.calls == (status == 200)


def test_the_page_names_no_other_host(page: str) -> None:
    for path in ("/", "/page.css", "/page.js"):
        status, headers, content = call(page, path)
        assert status == 200
        assert headers["content-security-policy"].startswith("default-src 'none'")
        addresses = set(re.findall(rb"(?:https?:)?//[\w.-]+\.\w+", content))
        assert addresses <= {b"http://www.w3.org"}  # the name of SVG's language


def test_the_command_refuses_in_one_line(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no picture")
    with listen(0) as taken:
        port = taken.getsockname()[1]
        for words, said in (
            (("--port", port), f"port {port} cannot be used"),
            ((tmp_path / "note.png",), "not a picture that can be read"),
            ((tmp_path / "absent.png",), "absent.png"),
            ((DOCS / "source.png",) * 3, "at most two pictures"),
            (("--port", 0, "--run", tmp_path / "absent"), "no run at"),
            (("--port", 0, "--run", "avatars64", "--url", "localhost:1"), "--run computes here"),
            (("--port", 0, "--repository", tmp_path / "absent"), "there is no model repository"),
        ):
            outcome = homomorph("ui", *words)
            assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
            assert said in outcome.err
