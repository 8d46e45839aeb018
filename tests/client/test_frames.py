"""Frames draw themselves in a notebook, and are arrays in every other way."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from homomorph_client.frames import Frames


@pytest.fixture
def frames() -> Frames:
    """Nine frames of 8x6 pixels, which tell their place by their colour."""
    grey = np.arange(9, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(grey, (9, 8, 6, 3)).copy().view(Frames)


def drawn(frames: Frames) -> np.ndarray:
    png = frames._repr_png_()
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_sequence_is_drawn_in_rows(frames: Frames) -> None:
    assert drawn(frames).shape == (8, 54, 3)
    assert drawn(frames)[0, ::6, 0].tolist() == list(range(9))
    wide = np.repeat(frames, 100, axis=2).view(Frames)  # 600 pixels each: one per row
    assert drawn(wide).shape == (72, 600, 3)
    twice = np.repeat(frames, 50, axis=2)[:5].view(Frames)  # three per row, and a white place
    assert drawn(twice)[:, ::300, 0].tolist() == [[0, 1, 2]] * 8 + [[3, 4, 255]] * 8


def test_a_picture_a_grid_and_a_long_film_are_drawn(frames: Frames) -> None:
    assert drawn(frames[3]).shape == (8, 6, 3)
    assert drawn(frames.reshape(3, 3, 8, 6, 3))[::8, ::6, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    film = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3).view(Frames)
    assert drawn(film)[0, [0, -1], 0].tolist() == [0, 199]
    assert drawn(film).shape == (1, 64, 3)


def test_what_is_no_picture_is_not_drawn(frames: Frames) -> None:
    for other in (frames[0, 0], frames[..., 0], frames.astype(float), frames[:0]):
        assert other._repr_png_() is None


def test_computing_gives_what_plain_arrays_give(frames: Frames) -> None:
    plain = np.asarray(frames)
    assert type(plain) is np.ndarray
    assert type(frames[2:4]) is Frames
    assert type(frames / 2) is type(np.abs(frames.astype(int) - 1)) is type(frames.mean(axis=0)) is np.ndarray
    assert type(frames.max()) is np.uint8
    assert type(frames.mean()) is np.float64
    assert np.array_equal(pickle.loads(pickle.dumps(frames)), plain)
    assert Image.fromarray(frames[0]).size == (6, 8)
