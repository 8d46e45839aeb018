"""The simpler ways between pictures behind the real server, against eager PyTorch and what they are by definition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from homomorph.models.blending import blend
from homomorph_client import AsyncMorphClient, MethodError, MorphClient, RequestError, StrengthError
from homomorph_client.methods import places_in_square
from homomorph_client.names import BLENDS
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(served: Any) -> Iterator[str]:
    """A server of the simpler ways alone."""
    with TritonServer(served.repository, models=BLENDS) as server:
        yield server.grpc_url


@pytest.fixture(scope="module")
def blends(url: str) -> Iterator[MorphClient]:
    with MorphClient(url) as client:
        yield client


@pytest.fixture
def corners(pictures: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """The two pictures, and both upside down."""
    return [*pictures, *pictures[:, ::-1]]


def assert_alike(frames: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("method", BLENDS)
def test_a_blend_of_two_is_what_eager_pytorch_computes(
    served: Any, blends: MorphClient, pictures: npt.NDArray[np.uint8], method: str
) -> None:
    places = torch.tensor([[[0.0, 0], [0.25, 0], [0.5, 0], [0.75, 0], [1, 0]]])
    expected = blend(served.model, method, torch.from_numpy(pictures)[None], places)[0].numpy()
    frames = blends.morph(*pictures, steps=5, method=method)
    assert_alike(frames, expected)
    assert_alike(blends.morph(*pictures, strengths={"all": np.linspace(0, 1, 5)}, method=method), frames)
    assert_alike(blends.submit(*pictures, steps=5, method=method).result(60), frames)


def test_pixels_are_blended_as_such(
    blends: MorphClient, corners: list[npt.NDArray[np.uint8]], pictures: npt.NDArray[np.uint8]
) -> None:
    source, target = pictures.astype(np.float64)
    assert_alike(blends.morph(*pictures, steps=3, method="pixel")[1], np.rint((source + target) / 2).astype(np.uint8))
    square = blends.square(corners, method="pixel", size=3)
    assert (square[[0, 0, 2, 2], [0, 2, 0, 2]] == corners).all()
    assert_alike(square[1, 1], np.rint(np.mean(corners, axis=0)).astype(np.uint8))
    assert_alike(square[2, 1], np.rint(np.mean(corners[2:], axis=0)).astype(np.uint8))


@pytest.mark.parametrize("method", ["latent", "slerp"])
def test_a_square_has_its_corners_and_morphs_for_edges(
    served: Any, blends: MorphClient, corners: list[npt.NDArray[np.uint8]], method: str
) -> None:
    square = blends.square(corners, method=method, size=3)
    places = torch.from_numpy(places_in_square(blends.served_model(method), 3))[None]
    expected = blend(served.model, method, torch.from_numpy(np.stack(corners))[None], places)[0].numpy()
    assert_alike(square.reshape(expected.shape), expected)
    assert_alike(square[0], blends.morph(corners[0], corners[1], steps=3, method=method))
    assert_alike(square[:, 2], blends.morph(corners[1], corners[3], steps=3, method=method))


def test_the_asyncio_client_agrees(
    url: str, blends: MorphClient, corners: list[npt.NDArray[np.uint8]], pictures: npt.NDArray[np.uint8]
) -> None:
    async def both() -> list[npt.NDArray[np.uint8]]:
        async with AsyncMorphClient(url) as client:
            return list(
                await asyncio.gather(
                    client.morph(*pictures, steps=3, method="slerp"), client.square(corners, method="pixel", size=2)
                )
            )

    frames, square = asyncio.run(both())
    assert_alike(frames, blends.morph(*pictures, steps=3, method="slerp"))
    assert_alike(square, blends.square(corners, method="pixel", size=2))


def test_shared_memory_gives_the_same(
    url: str, blends: MorphClient, corners: list[npt.NDArray[np.uint8]], pictures: npt.NDArray[np.uint8]
) -> None:
    with MorphClient(url, shared_memory=True) as client:
        assert_alike(client.morph(*pictures, steps=3, method="slerp"), blends.morph(*pictures, steps=3, method="slerp"))
        assert_alike(client.square(corners, method="pixel", size=4), blends.square(corners, method="pixel", size=4))


def test_what_cannot_be_asked_is_refused(
    blends: MorphClient, corners: list[npt.NDArray[np.uint8]], pictures: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(MethodError, match="no method 'slurp': choose homomorph, pixel, latent, slerp"):
        blends.morph(*pictures, method="slurp")
    with pytest.raises(MethodError, match="'homomorph' fills no square"):
        blends.square(corners, method="homomorph")
    with pytest.raises(MethodError, match="4 corners, not 3"):
        blends.square(corners[:3])
    with pytest.raises(MethodError, match="17x17 are too many"):
        blends.square(corners, size=17)
    with pytest.raises(StrengthError, match="no group 'hair': the model has all"):
        blends.morph(*pictures, strengths={"hair": 1}, method="latent")
    with pytest.raises(RequestError, match="'morph'"):
        blends.morph(*pictures)


def test_the_commands_ask_for_them(
    homomorph: Callable[..., Any], url: str, blends: MorphClient, corners: list[npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.png" for name in "abcd"]
    for file, picture in zip(files, corners, strict=True):
        Image.fromarray(picture).save(file)
    strip, table = tmp_path / "strip.png", tmp_path / "table.png"
    outcome = homomorph("morph", *files[:2], "--method", "slerp", "--steps", 3, "--out", strip, "--url", url)
    assert (outcome.code, outcome.err) == (0, "")
    frames = blends.morph(corners[0], corners[1], steps=3, method="slerp")
    assert_alike(np.asarray(Image.open(strip)), np.concatenate(list(frames), axis=1))
    for method in (["--method", "pixel"], []):
        outcome = homomorph("grid", *files, *method, "--size", 2, "--out", table, "--url", url)
        assert (outcome.code, outcome.err) == (0, "")
        square = blends.square(corners, size=2, method=method[1] if method else "latent")
        assert_alike(np.asarray(Image.open(table)), np.concatenate([np.concatenate(list(row), 1) for row in square]))
