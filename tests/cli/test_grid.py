"""`homomorph grid` refuses bad input in one line, before it asks any server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "skin", "--columns", "hair", "--out", "x.gif"], "x.gif: a grid is written as .png"),
        (["--rows", "skin", "--columns", "hair", "--out", "x"], "x: a grid is written as .png"),
        (["--rows", "skin", "--columns", "hair", "--out", "x.png", "--size", "1"], "--size"),
        (["--rows", "skin", "--out", "x.png"], "needs --rows GROUP and --columns GROUP"),
        (["a.png", "--out", "x.png"], "a grid takes 2 pictures, or 4 for its corners, not 3"),
        (["a.png", "a.png", "--rows", "skin", "--out", "x.png"], "--rows and --columns are for 2 pictures"),
        (["--method", "slerp", "--out", "x.png"], "--method slerp is for 4 pictures"),
        (["a.png", "a.png", "--method", "homomorph", "--out", "x.png"], "--method"),
        (["a.png", "a.png", "--method", "slerp", "--out", "x.png"], "no server answers gRPC at 127.0.0.1:9"),
        (["--rows", "skin", "--columns", "hair", "--out", "x.png"], "no server answers gRPC at 127.0.0.1:9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_code_2_and_nothing_written(
    homomorph: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "white").save("a.png")
    outcome = homomorph("grid", "a.png", "a.png", "--url", "127.0.0.1:9", *words)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
