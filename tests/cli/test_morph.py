"""`homomorph morph` refuses bad input in one line, before it asks any server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from homomorph_cli.morph import parse_sliders
from homomorph_cli.works import slider_strengths
from homomorph_client.errors import StrengthError
from homomorph_client.served_model import ServedModel

UNREACHABLE = "127.0.0.1:9"
MODEL = ServedModel("morph", ("hair", "glasses"), {}, 64, max_steps=256, max_strength=2)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture file."""
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.jpg"], ".jpg cannot be written: give .png, .gif, .mp4 or a folder"),
        (["--out", "x.png", "--out", "x.txt"], ".txt cannot be written"),
        (["--out", "a.png/x.png"], "is not a folder"),
        (["--out", "x.png", "--steps", "1"], "--steps"),
        (["--out", "x.png", "--steps", "many"], "--steps"),
        (["--out", "x.png", "--set", "glasses"], "must be GROUP=V"),
        (["--out", "x.png", "--set", "=1"], "must be GROUP=V"),
        (["--out", "x.png", "--set", "glasses=much"], "'much' is not a number"),
        (["--out", "x.png", "--set", "glasses=nan"], "'nan' is not a number"),
        (["--out", "x.png", "--set", "glasses=1e999"], "'1e999' is not a number"),
        (["--out", "x.png", "--set", "glasses=1", "--set", "glasses=0"], "'glasses' twice"),
        (["--out", "x.png", "--method", "slurp"], "--method"),
        (["--out", "x.png", "--method", "slerp", "--set", "glasses=1"], "--set is for --method homomorph"),
        (["--out", "x.png", "--method", "slerp", "--full-size"], "--full-size is for --method homomorph"),
        (["--out", "x.png", "--url", "http://127.0.0.1"], "host:port"),
        (["--out", "x.png", "--timeout", "0"], "more than 0 s"),
        (["--out", "x.png", "--what"], "No such option: --what"),
        ([], "Missing option '--out'"),
        (["--out", "x.png"], "no server answers gRPC at 127.0.0.1:9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_code_2_and_nothing_written(
    homomorph: Callable[..., Any],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(picture.parent)
    url = [] if "--url" in words else ["--url", UNREACHABLE]
    outcome = homomorph("morph", "a.png", "a.png", *url, *words)
    assert outcome.code == 2
    assert outcome.err.startswith("homomorph: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert list(picture.parent.iterdir()) == [picture]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "there is no file"),
        ("text.png", b"hello", "not a picture"),
        ("short.png", b"\x89PNG\r\n\x1a\n", "text.png|short.png"),
    ],
)
def test_bad_pictures_are_reported_before_a_missing_server(
    homomorph: Callable[..., Any], picture: Path, name: str, content: bytes | None, message: str
) -> None:
    bad = picture.parent / name
    if content is not None:
        bad.write_bytes(content)
    for words in ((bad, picture), (picture, bad)):
        outcome = homomorph("morph", *words, "--out", picture.parent / "x.png", "--url", UNREACHABLE)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert any(part in outcome.err for part in message.split("|"))
        assert not (picture.parent / "x.png").exists()


def test_without_words_there_is_help(homomorph: Callable[..., Any]) -> None:
    outcome = homomorph()
    assert outcome.code == 0
    assert "morph" in outcome.out
    assert outcome.err == ""


def test_unknown_command(homomorph: Callable[..., Any]) -> None:
    outcome = homomorph("marph")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "marph" in outcome.err


def test_sliders_move_only_what_they_name() -> None:
    strengths = slider_strengths(MODEL, parse_sliders(["glasses=2"]), 3)
    assert strengths.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_without_sliders_everything_moves() -> None:
    assert slider_strengths(MODEL, {}, 3).tolist() == [[0, 0], [0.5, 0.5], [1, 1]]


@pytest.mark.parametrize(
    ("ends", "steps", "message"),
    [
        ({"beard": 1}, 3, "no group 'beard': the model has hair, glasses"),
        ({"glasses": 2.5}, 3, r"\[0, 2\]: found 0 to 2.5"),
        ({}, 10**12, "steps must be from 2 to 256"),
    ],
)
def test_sliders_beyond_the_model(ends: dict[str, float], steps: int, message: str) -> None:
    with pytest.raises(StrengthError, match=message):
        slider_strengths(MODEL, ends, steps)
