"""The command line against a real server."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from homomorph_client import MorphClient
from homomorph_client.pictures import fit_picture

pytestmark = pytest.mark.server


@pytest.fixture
def files(pictures: Any, tmp_path: Path) -> tuple[Path, Path]:
    """The two pictures as files."""
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def test_morph_writes_every_output_of_one_request(
    homomorph: Callable[..., Any], served: Any, client: MorphClient, files: tuple[Path, Path], tmp_path: Path
) -> None:
    strip, loop, folder = tmp_path / "out" / "x.png", tmp_path / "out" / "x.gif", tmp_path / "out" / "frames"
    outcome = homomorph(
        "morph", *files, "--out", strip, "--out", loop, "--out", folder, "--steps", 5, "--url", served.url
    )
    assert (outcome.code, outcome.err) == (0, "")
    *paths, summary = outcome.out.splitlines()
    assert paths == [str(strip), str(loop), str(folder)]
    assert re.fullmatch(r"5 frames of 64x64 pixels in \d+ ms", summary)
    frames = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    assert np.array_equal(np.asarray(Image.open(strip)), np.concatenate(list(frames), axis=1))
    assert np.abs(frames.astype(int) - client.morph(*files, steps=5)).max() <= 1


def test_morph_of_one_group(
    homomorph: Callable[..., Any], served: Any, client: MorphClient, files: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["--set", "glasses=2", "--steps", 3, "--url", served.url]
    assert homomorph("morph", *files, "--out", tmp_path / "x.png", *words).code == 0
    strip = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    expected = client.morph(*files, strengths={"glasses": [0, 1, 2]})
    assert np.abs(strip - np.concatenate(list(expected), axis=1)).max() <= 1


def test_at_full_size_the_ends_are_the_pictures(
    homomorph: Callable[..., Any], served: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    large = [tmp_path / f"large_{file.name}" for file in files]
    for file, path in zip(files, large, strict=True):
        Image.open(file).resize((200, 150)).save(path)
    words = ["--steps", 3, "--full-size", "--url", served.url]
    assert homomorph("morph", *large, "--out", tmp_path / "out", *words).code == 0
    first, _, last = (np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").iterdir()))
    for frame, path in zip((first, last), large, strict=True):
        assert np.array_equal(frame, fit_picture(path, 150))
    words = ["--set", "hair=blond:0", "--steps", 2, "--full-size", "--url", served.url]
    assert homomorph("edit", large[0], "--out", tmp_path / "edited", *words).code == 0
    for path in (tmp_path / "edited").iterdir():
        assert np.array_equal(np.asarray(Image.open(path)), fit_picture(large[0], 150))


def test_grid(
    homomorph: Callable[..., Any], served: Any, client: MorphClient, files: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["--rows", "glasses", "--columns", "hair", "--size", 3, "--url", served.url]
    outcome = homomorph("grid", *files, *words, "--out", tmp_path / "out" / "grid.png")
    assert (outcome.code, outcome.err) == (0, "")
    table = np.asarray(Image.open(tmp_path / "out" / "grid.png")).astype(int)
    assert table.shape == (3 * 64, 3 * 64, 3)
    grid = client.grid(*files, rows="glasses", columns="hair", size=3)
    assert np.abs(table[64:128, 128:] - grid[1, 2]).max() <= 1
    refused = homomorph("grid", *files, "--rows", "hair", *words[2:], "--out", tmp_path / "x.png")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "rows and columns must be different groups" in refused.err
    assert not (tmp_path / "x.png").exists()


def test_unknown_group(homomorph: Callable[..., Any], served: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = homomorph("morph", *files, "--out", tmp_path / "x.png", "--set", "beard=1", "--url", served.url)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "there is no group 'beard': the model has hair, glasses, residual" in outcome.err
    assert not (tmp_path / "x.png").exists()


def test_demo_goes_the_whole_way(
    served: Any,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from homomorph_cli.demo import app
    from homomorph_cli.one_line_errors import run_app

    run = served.repository.parent / "run"
    folder = tmp_path / "my pictures"
    folder.mkdir()
    pictures = [shutil.copy(file, folder) for file in files]
    folders = ["--run", run, "--repository", tmp_path / "repository", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, [*pictures, *folders])])
    with pytest.raises(SystemExit) as exited:
        run_app(app)
    assert not exited.value.code
    assert Image.open(tmp_path / "out" / "morph.png").size == (9 * 128, 128)
    assert (tmp_path / "out" / "morph.gif").exists()
    sheet = np.asarray(Image.open(tmp_path / "out" / "groups.png"))
    strip = np.asarray(Image.open(tmp_path / "out" / "morph.png")).astype(int)
    rows, strips = len(served.model.config.branches), sheet[:, -9 * 128 :]
    assert strips.shape == ((1 + rows) * 128, 9 * 128, 3)
    assert np.abs(strips[:128] - strip).max() <= 1
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"9 frames of 64x64 pixels over gRPC: median \d+\.\d ms", "\n".join(lines))
    program, *words = shlex.split(lines[-1].partition(": ")[2])
    assert Path(program).name == "homomorph"
    assert words == ["ui", *map(str, pictures), "--run", str(run)]
