"""Photographs whose face is anywhere: found, turned upright, cut with both eyes at fixed places."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from homomorph.data.align import EYES, align_picture, cut
from homomorph.data.labels import UNKNOWN, read_labelled

PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""In the public domain, and part of matplotlib."""


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    if not PHOTOGRAPH.exists():
        pytest.skip("this matplotlib comes without its sample photograph")
    return Image.open(PHOTOGRAPH).convert("RGB").resize((256, 300))


def place(picture: NDArray[np.uint8], colour: int) -> complex:
    """The centre of the pixels in which one channel is the brightest by far, as a share of the side."""
    others = np.delete(picture, colour, axis=2).max(axis=2)
    rows, columns = np.nonzero(picture[:, :, colour].astype(int) - others > 100)
    return complex(columns.mean() + 0.5, rows.mean() + 0.5) / len(picture)


@pytest.mark.parametrize("scale", [1, 8])
def test_the_eyes_come_to_lie_at_their_places_and_the_edge_repeats(scale: int) -> None:
    """Of a face that is turned by 90 degrees, in a corner; large ones are reduced without skipping pixels."""
    picture = np.full((90 * scale, 60 * scale, 3), 200, np.uint8)
    for x, y, colour in ((20, 8, 0), (20, 28, 2)):
        picture[y * scale : (y + 2) * scale, x * scale : (x + 2) * scale] = np.eye(3)[colour] * 255
    result = cut(picture, scale * np.array([21 + 9j, 21 + 29j]) - 0.5 - 0.5j, 64)
    assert result.shape == (64, 64, 3)
    np.testing.assert_allclose([place(result, 0), place(result, 2)], EYES, atol=0.01)
    assert result.min(axis=2)[:4].min() > 190  # beyond the picture


@pytest.mark.parametrize("angle", [0, 45, 200])
def test_a_face_is_found_at_any_angle_and_place(photograph: Image.Image, angle: int) -> None:
    expected = align_picture(np.array(photograph), 64)
    canvas = Image.new("RGB", (500, 620), (90, 120, 100))
    canvas.paste(photograph.convert("L"), (200, 280))
    turned = np.array(canvas.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(90, 120, 100)))
    found = align_picture(turned, 64)
    assert expected is not None
    assert found is not None
    assert (expected[1], found[1]) == (1, 1)
    grey = np.array(Image.fromarray(expected[0]).convert("L"), dtype=float)
    face = np.s_[24:52, 18:46]
    difference, mirrored = (np.abs(grey - other)[face].mean() for other in (found[0][:, :, 0], found[0][:, ::-1, 0]))
    assert difference < 0.6 * mirrored


def test_a_labelled_folder_stays_one(homomorph: Callable[..., Any], tmp_path: Path, photograph: Image.Image) -> None:
    folder, out = tmp_path / "photographs", tmp_path / "aligned"
    (folder / "images" / "more").mkdir(parents=True)
    photograph.save(folder / "images" / "a.jpg")
    photograph.convert("L").rotate(20).save(folder / "images" / "a.webp")
    two = Image.new("RGB", (300, 500), "teal")
    two.paste(photograph.resize((120, 140)), (0, 0))
    two.paste(photograph, (20, 180))
    two.save(folder / "images" / "more" / "b.png")
    Image.new("RGB", (64, 64), "grey").save(folder / "images" / "wall.png")
    (folder / "images" / "torn.png").write_bytes((folder / "images" / "more" / "b.png").read_bytes()[:9000])
    (folder / "groups.yaml").write_text("expression: [smiling]\nglasses: [round]\n")
    table = "image,smiling,round,age\na.jpg,1,,61\nb.png,0,1,61\nwall.png,1,1,0\ntorn.png,1,0,0\n"
    (folder / "attributes.csv").write_text(table)

    outcome = homomorph("align", folder, "--out", out, "--size", 32)
    assert outcome.code == 0
    assert "3 pictures of 32x32 pixels in" in outcome.out
    assert "the largest of several faces is taken: 1, such as more/b.png\nleft out: 2, such as " in outcome.out
    data = read_labelled(out)
    assert [data.name(row) for row in range(2)] == ["a.png", "more/b.png"]
    np.testing.assert_array_equal(data.labels, [[1, UNKNOWN], [0, 1]])
    assert len(read_labelled(out, unlisted=True).paths) == 3
    assert {Image.open(path).size for path in data.paths} == {(32, 32)}
    with (out / "align.csv").open() as file:
        notes = dict(csv.reader(file))
    assert notes["more/b.png"] == "2 faces, the largest is taken"
    one, largest = (np.array(Image.open(out / "images" / name), dtype=float) for name in ("a.png", "more/b.png"))
    assert np.abs(one - largest)[12:26, 9:23].mean() < 12
    assert notes["wall.png"] == "left out: no face is found"
    assert "torn.png cannot be decoded" in notes["torn.png"]

    again = homomorph("align", folder, "--out", out)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "already exists" in again.err


def test_one_picture_becomes_a_png(homomorph: Callable[..., Any], tmp_path: Path, photograph: Image.Image) -> None:
    photograph.save(tmp_path / "me.jpg")
    assert homomorph("align", tmp_path / "me.jpg", "--out", tmp_path / "me.png", "--size", 48).code == 0
    assert Image.open(tmp_path / "me.png").size == (48, 48)


@pytest.mark.parametrize("source", ["walls", "walls/wall.png", "nothing"])
def test_what_shows_no_face_is_one_error_and_nothing_is_written(
    homomorph: Callable[..., Any], tmp_path: Path, source: str
) -> None:
    (tmp_path / "walls").mkdir()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "walls" / "wall.png")
    outcome = homomorph("align", tmp_path / source, "--out", tmp_path / "out.png")
    last = outcome.err.splitlines()[-1]
    assert (outcome.code, last.startswith("homomorph: ")) == (2, True)
    assert ("no file" if source == "nothing" else "no face is found") in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walls"]
