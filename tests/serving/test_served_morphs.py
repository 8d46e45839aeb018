"""What comes over gRPC from a real Triton server, against eager PyTorch."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from homomorph_client import (
    AsyncMorphClient,
    DeadlineError,
    MorphClient,
    PictureError,
    RequestError,
    StrengthError,
)
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput

pytestmark = pytest.mark.server

GROUPS = ("hair", "glasses", "residual")


def largest_difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> int:
    """Return the largest difference in grey levels."""
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_client_learns_the_model(client: MorphClient) -> None:
    assert client.ready()
    assert client.groups == GROUPS
    assert client.picture_size == 64


@pytest.mark.parametrize(
    ("batch", "height", "width", "steps"), [(1, 64, 64, 9), (2, 64, 64, 5), (3, 32, 48, 2), (1, 96, 8, 1)]
)
def test_served_frames_equal_eager(served: Any, batch: int, height: int, width: int, steps: int) -> None:
    rng = np.random.default_rng(batch)
    source, target = rng.integers(0, 256, (2, batch, height, width, 3), dtype=np.uint8)
    strengths = rng.uniform(0, 2, (batch, steps, 3)).astype(np.float32)
    strengths[:, :, 1] *= rng.integers(0, 2, (batch, 1))  # branches that some or all requests leave out
    inputs = []
    for name, datatype, array in (
        ("SOURCE", "UINT8", source),
        ("TARGET", "UINT8", target),
        ("STRENGTHS", "FP32", strengths),
    ):
        inputs.append(InferInput(name, list(array.shape), datatype).set_data_from_numpy(array))
    with InferenceServerClient(served.url) as triton:
        frames = triton.infer("morph", inputs).as_numpy("FRAMES")
    expected = served.expected(source, target, strengths)
    assert expected.std() > 10, "a flat picture would compare equal to anything flat"
    assert largest_difference(frames, expected) <= 1


@pytest.mark.parametrize("picture_size", [64, 32])
def test_client_frames_equal_eager(served: Any, pictures: npt.NDArray[np.uint8], picture_size: int) -> None:
    source, target = (picture[:picture_size, :picture_size] for picture in pictures)
    strengths = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [2, 0.5, 0.1]], np.float32)
    with MorphClient(served.url, picture_size=picture_size) as client:
        frames = client.morph(source, target, strengths=strengths)
    assert largest_difference(frames, served.expected(source[None], target[None], strengths[None])[0]) <= 1
    assert largest_difference(frames[1], frames[2]) > 10, "the groups must differ for their order to be tested"


def test_pictures_of_all_kinds(client: MorphClient, pictures: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    source, target = pictures
    wide = np.zeros((64, 100, 3), np.uint8)
    wide[:, 18:82] = source
    Image.fromarray(wide).save(tmp_path / "source.png")
    frames = client.morph(source, target)
    assert frames.shape == (9, 64, 64, 3)
    for a, b in ((tmp_path / "source.png", Image.fromarray(target)), (str(tmp_path / "source.png"), target / 255)):
        assert largest_difference(client.morph(a, b), frames) <= 1


def test_mapping_equals_array(client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    by_name = client.morph(*pictures, strengths={"glasses": [0, 0.5, 1], "residual": 0.25})
    by_column = client.morph(*pictures, strengths=[[0, 0, 0.25], [0, 0.5, 0.25], [0, 1, 0.25]])
    assert largest_difference(by_name, by_column) <= 1


def test_grid_is_made_of_morphs(client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    grid = client.grid(*pictures, rows="glasses", columns="hair", size=3)
    assert grid.shape == (3, 3, 64, 64, 3)
    last_row = client.morph(*pictures, strengths={"glasses": 1, "hair": [0, 0.5, 1]})
    last_column = client.morph(*pictures, strengths={"glasses": [0, 0.5, 1], "hair": 1})
    assert largest_difference(grid[2], last_row) <= 1
    assert largest_difference(grid[:, 2], last_column) <= 1
    assert largest_difference(grid[2], grid[:, 2]) > 10


def test_many_requests_at_once(client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    """Requests that Triton batches together must not mix."""
    ends = [{"hair": i / 4, "glasses": 1 - i / 4} for i in range(5)]
    expected = [client.morph(*pictures, strengths=end) for end in ends]
    futures = [client.submit(*pictures, strengths=end) for end in ends]
    with ThreadPoolExecutor(len(ends)) as pool:
        threaded = list(pool.map(lambda end: client.morph(*pictures, strengths=end), ends))
    for future, frames, wanted in zip(futures, threaded, expected, strict=True):
        assert largest_difference(future.result(timeout=60), wanted) <= 1
        assert largest_difference(frames, wanted) <= 1


def test_async_client_agrees(served: Any, client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    async def morphs() -> list[npt.NDArray[np.uint8]]:
        async with AsyncMorphClient(served.url) as async_client:
            assert await async_client.ready()
            assert (await async_client.served_model()).groups == GROUPS
            first, second = async_client.morph(*pictures, steps=3), async_client.morph(*pictures[::-1], steps=3)
            return list(await asyncio.gather(first, second))

    there, back = asyncio.run(morphs())
    assert largest_difference(there, client.morph(*pictures, steps=3)) <= 1
    assert largest_difference(back, client.morph(*pictures[::-1], steps=3)) <= 1


def test_answers_beyond_grpcs_usual_limit(served: Any, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(served.url, picture_size=256) as client:
        frames = client.morph(*pictures, steps=22)
    assert frames.nbytes > 4 * 2**20


def test_refused_strengths_and_sizes(served: Any, client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(StrengthError, match="'beard': the model has hair, glasses, residual"):
        client.morph(*pictures, strengths={"beard": 1})
    with MorphClient(served.url, picture_size=100) as odd, pytest.raises(PictureError, match="multiple of 8"):
        odd.morph(*pictures)


def test_server_refuses(served: Any, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(served.url, model_name="nothing") as client:
        assert not client.ready()
        with pytest.raises(RequestError, match="'nothing'"):
            client.morph(*pictures)
    with MorphClient(served.url, picture_size=512) as client, pytest.raises(RequestError, match="too many frames"):
        client.morph(*pictures, steps=65)


def test_deadline(served: Any, client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(served.url) as hasty:
        assert hasty.groups == GROUPS
        hasty.timeout_s = 0.001
        with pytest.raises(DeadlineError, match=r"0\.001 s"):
            hasty.morph(*pictures)
        with pytest.raises(DeadlineError, match=r"0\.001 s"):
            hasty.submit(*pictures).result(timeout=60)
    assert client.ready(), "the server outlives requests that were given up"
