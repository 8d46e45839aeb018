"""Details that a model loses come back where a frame shows the picture, and only there."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from homomorph_client.details import Original, with_details
from homomorph_client.errors import PictureError, StrengthError
from homomorph_client.full_size import full_size_edit, full_size_morph
from homomorph_client.served_model import ServedModel

MODEL = ServedModel("morph", ("hair", "glasses"), {"hair": ("blond",)}, 32, max_steps=16, max_strength=2)


def shrunk(picture: npt.NDArray[np.uint8], size: int = 32) -> npt.NDArray[np.uint8]:
    """What a perfect model of that size draws."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


@pytest.fixture
def noise() -> list[npt.NDArray[np.uint8]]:
    """Two pictures with details that a model of 32 pixels cannot draw, on a dark and on a light ground."""
    generator = np.random.default_rng(0)
    return [(ground + generator.integers(0, 60, (128, 128, 3))).astype(np.uint8) for ground in (40, 150)]


def test_ends_are_the_pictures_themselves(noise: list[npt.NDArray[np.uint8]]) -> None:
    originals = [Original(picture, shrunk(picture)) for picture in noise]
    frames = np.stack([original.decoded for original in originals])
    restored = with_details(frames, originals, np.eye(2, dtype=np.float32))
    assert np.array_equal(restored, np.stack(noise))


def test_pictures_that_the_model_draws_alike_share_their_details(noise: list[npt.NDArray[np.uint8]]) -> None:
    decoded = np.full((32, 32, 3), 70, np.uint8)
    originals = [Original(noise[0], decoded), Original(noise[0][::-1].copy(), decoded)]
    restored = with_details(decoded[None], originals, np.array([[0.75, 0.25]], np.float32))
    expected = 0.75 * noise[0].astype(float) + 0.25 * noise[0][::-1]
    assert np.abs(restored[0] - expected).max() <= 1


def test_a_new_part_gets_no_details_and_the_rest_keeps_them(noise: list[npt.NDArray[np.uint8]]) -> None:
    picture, decoded = noise[0], shrunk(noise[0])
    frame = decoded.copy()
    frame[:, 16:] = np.random.default_rng(1).integers(0, 255, (32, 16, 3))
    restored = with_details(frame[None], [Original(picture, decoded)], np.ones((1, 1), np.float32))[0].astype(float)
    assert np.abs(restored[:, :40] - picture[:, :40]).mean() < 2
    drawn = np.asarray(Image.fromarray(frame).resize((128, 128), Image.Resampling.BICUBIC)).astype(float)
    # The details that the picture has there, 15 grey levels on average, are gone.
    assert np.abs(restored[:, 88:] - drawn[:, 88:]).mean() < 2


def test_another_colour_keeps_the_shape(noise: list[npt.NDArray[np.uint8]]) -> None:
    picture, decoded = noise[0], shrunk(noise[0])
    frame = (decoded + np.array([30, 10, 0])).astype(np.uint8)
    restored = with_details(frame[None], [Original(picture, decoded)], np.ones((1, 1), np.float32))[0].astype(float)
    details = restored - restored.mean((0, 1))
    assert np.corrcoef(details.ravel(), (picture - picture.mean((0, 1))).ravel())[0, 1] > 0.95


def test_the_model_is_asked_for_the_pictures_too(noise: list[npt.NDArray[np.uint8]]) -> None:
    wanted = full_size_morph(MODEL, noise[0], noise[1][:100], steps=None, strengths={"hair": [0, 2]}, size=None)
    assert wanted.strengths.tolist() == [[0, 0], [2, 0], [0, 0], [1, 1]]
    assert wanted.shares.tolist() == [[1, 0], [0, 1]]
    assert wanted.size == 100
    edit = full_size_edit(MODEL, noise[0], {"hair": "blond"}, steps=2, strengths=None, size=64)
    assert edit.strengths.tolist() == [[0, 0], [1, 0], [0, 0]]
    frames = np.stack([shrunk(noise[0])] * 3)
    assert edit.finish(frames).shape == (2, 64, 64, 3)


def test_sizes_and_files() -> None:
    small, large = Image.new("RGB", (9, 9)), Image.new("RGB", (3000, 2500))
    file = io.BytesIO()
    large.save(file, "PNG")
    file.seek(0)
    assert full_size_morph(MODEL, small, small, steps=2, strengths=None, size=None).size == 32
    assert full_size_morph(MODEL, file, large, steps=2, strengths=None, size=None).size == 2048
    for size in (31, 2049, 64.0, "64"):
        with pytest.raises(PictureError, match="size must be a whole number from 32 to 2048"):
            full_size_morph(MODEL, small, small, steps=2, strengths=None, size=size)  # type: ignore[arg-type]
    with pytest.raises(StrengthError, match="1 to 14 frames, not 15"):
        full_size_morph(MODEL, small, small, steps=15, strengths=None, size=None)
    many = ServedModel("morph", ("hair",), {}, 32, max_steps=4096, max_strength=2)
    with pytest.raises(StrengthError, match="400 frames of 2048x2048 pixels are more than 4 GiB"):
        full_size_morph(many, large, large, steps=400, strengths=None, size=None)
