"""Frames written as a strip, a loop, a film and a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from homomorph_client.errors import OutputError
from homomorph_client.output import check_output, write_output


@pytest.fixture
def frames() -> npt.NDArray[np.uint8]:
    """Five flat frames [5, 16, 24, 3] from black to white."""
    greys = np.array([0, 60, 120, 180, 255], np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (5, 16, 24, 3)).copy()


def test_strip_lies_side_by_side(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_output(tmp_path / "new" / "folder" / "a.png", frames)
    strip = np.asarray(Image.open(tmp_path / "new" / "folder" / "a.png"))
    assert strip.shape == (16, 5 * 24, 3)
    assert np.array_equal(strip[0, ::24, 0], [0, 60, 120, 180, 255])


def test_gif_loops_there_and_back(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_output(tmp_path / "a.GIF", frames)
    with Image.open(tmp_path / "a.GIF") as gif:
        greys = []
        for index in range(gif.n_frames):
            gif.seek(index)
            greys.append(np.asarray(gif.convert("RGB"))[0, 0, 0])
        assert greys == [0, 60, 120, 180, 255, 180, 120, 60]
        assert gif.info["loop"] == 0  # for ever


def test_mp4(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    write_output(tmp_path / "a.mp4", frames)
    with av.open(tmp_path / "a.mp4") as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).max() <= 4


def test_mp4_needs_even_sides(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    with pytest.raises(OutputError, match="not 15x16"):
        write_output(tmp_path / "a.mp4", np.zeros((2, 16, 15, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_mp4_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(OutputError, match="pip install"):
        check_output(tmp_path / "a.mp4")


def test_folder(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_output(tmp_path / "film", frames)
    write_output(tmp_path / "film", frames[:3])  # replaces the frames of the first
    assert sorted(path.name for path in (tmp_path / "film").iterdir()) == [f"frame-00{i}.png" for i in range(3)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "film" / "frame-001.png")), frames[1])


def test_files_get_usual_permissions(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    (tmp_path / "usual").touch()
    write_output(tmp_path / "a.png", frames)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jpg", ".jpg cannot be written: give .png, .gif, .mp4 or a folder"),
        ("a.png.txt", ".txt cannot be written"),
        ("file", "is a file without a suffix"),
        ("file/a.png", "is not a folder"),
        ("photos", "holds mine.jpg"),
    ],
)
def test_refused_and_nothing_changed(tmp_path: Path, frames: npt.NDArray[np.uint8], name: str, message: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=re.escape(message)) as caught:
        check_output(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(OutputError):
        write_output(tmp_path / name, frames)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_failed_write_keeps_the_old_file(
    tmp_path: Path, frames: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(self: Image.Image, path: Path, *args: object, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(OutputError, match="No space left"):
        write_output(tmp_path / "a.png", frames)
    with pytest.raises(OutputError, match="No space left"):
        write_output(tmp_path / "film", frames)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "old"
