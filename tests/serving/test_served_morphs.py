"""What comes over gRPC from a real Triton server, against eager PyTorch."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from homomorph.models.pixels import from_normalised, normalise
from homomorph_client import (
    AsyncMorphClient,
    DeadlineError,
    MorphClient,
    PictureError,
    RequestError,
    StrengthError,
)
from homomorph_export.serving.server import TritonServer

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


def test_an_edit_is_what_eager_pytorch_computes(
    served: Any, client: MorphClient, pictures: npt.NDArray[np.uint8]
) -> None:
    assert client.labels == {"hair": ("black", "blond"), "glasses": ("glasses",)}
    network = served.model.config.network
    with torch.inference_mode():
        source = served.model.encoder(normalise(torch.from_numpy(pictures[:1]).permute(0, 3, 1, 2), network))
        target = served.label_features(torch.tensor([[0.0, 1.0, 0.0]]), (8, 8))
        steps = torch.linspace(0, 1.5, 4).view(4, 1, 1, 1)
        features = source + steps * served.model.branches["hair"](target - source)
        expected = from_normalised(served.model.decoder(features), network).permute(0, 2, 3, 1).numpy()
    frames = client.edit(pictures[0], {"hair": "blond"}, strengths={"hair": np.linspace(0, 1.5, 4)})
    assert largest_difference(frames, expected) <= 1
    assert largest_difference(frames[0], frames[-1]) > 30

    async def edit() -> npt.NDArray[np.uint8]:
        async with AsyncMorphClient(served.url) as other:
            return await other.edit(pictures[0], {"hair": ["blond"]}, strengths={"hair": np.linspace(0, 1.5, 4)})

    assert largest_difference(asyncio.run(edit()), frames) == 0
    # At another size than the labels' features were fitted at.
    with MorphClient(served.url, picture_size=96) as larger:
        assert larger.edit(pictures[0], {"hair": "blond"}, steps=2).shape == (2, 96, 96, 3)
    refused = {
        "SOURCE": pictures[:1],
        "LABELS": np.full((1, 3), 1.5, np.float32),
        "STRENGTHS": np.ones((1, 1, 3), np.float32),
    }
    with pytest.raises(InferenceServerException, match="LABELS"):
        infer(served, refused, model="edit")
    assert client.edit(pictures[0], {"hair": []}, steps=2).shape == (2, 64, 64, 3)


def infer(
    served: Any, arrays: Mapping[str, npt.NDArray[Any]], *, model: str = "morph", timeout_s: float = 60
) -> npt.NDArray[np.uint8]:
    """Send a request as it is, without what `MorphClient` checks."""
    inputs = [
        InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)).set_data_from_numpy(array)
        for name, array in arrays.items()
    ]
    with InferenceServerClient(served.url) as triton:
        frames: npt.NDArray[np.uint8] = triton.infer(model, inputs, client_timeout=timeout_s).as_numpy("FRAMES")
    return frames


def request(
    *, height: int = 64, width: int = 64, steps: int = 2, groups: int = 3, strength: float = 1
) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a request for black pictures, a good one unless told otherwise."""
    picture = np.zeros((1, height, width, 3), np.uint8)
    return {
        "SOURCE": picture,
        "TARGET": picture,
        "STRENGTHS": np.full((1, steps, groups), strength, np.float32),
    }


@pytest.mark.parametrize(
    ("batch", "height", "width", "steps"), [(1, 64, 64, 9), (2, 64, 64, 5), (3, 32, 48, 2), (1, 96, 8, 1)]
)
def test_served_frames_equal_eager(served: Any, batch: int, height: int, width: int, steps: int) -> None:
    rng = np.random.default_rng(batch)
    source, target = rng.integers(0, 256, (2, batch, height, width, 3), dtype=np.uint8)
    strengths = rng.uniform(0, 2, (batch, steps, 3)).astype(np.float32)
    strengths[:, :, 1] *= rng.integers(0, 2, (batch, 1))  # branches that some or all requests leave out
    frames = infer(served, {"SOURCE": source, "TARGET": target, "STRENGTHS": strengths})
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


def pictures_encoded(served: Any) -> dict[str, int]:
    """Return how many pictures of morphs were in the cache ("yes") and how many not ("no"), from the metrics."""
    time.sleep(0.5)  # the model tells the server now and then
    with urllib.request.urlopen(f"http://127.0.0.1:{served.metrics_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        cached: int(float(count))
        for cached, count in re.findall(r'^homomorph_pictures{cached="(\w+)".*} (\S+)', text, re.M)
    }


def test_a_target_used_again_is_not_encoded_again(served: Any, client: MorphClient) -> None:
    def newly_encoded(ask: Callable[[], npt.NDArray[np.uint8]], times: int) -> int:
        before = pictures_encoded(served)
        answers = [ask() for _ in range(times)]
        assert all(np.array_equal(answer, answers[0]) for answer in answers), "whatever was known"
        encoded = {cached: count - before[cached] for cached, count in pictures_encoded(served).items()}
        assert sum(encoded.values()) == 2 * times
        return encoded["no"]

    # In no other test.
    source, other, target = np.random.default_rng(99).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert newly_encoded(lambda: client.morph(source, target), 3) == 2
    slid = client.morph(source, target, strengths={"hair": [0.3, 0.7]})
    ask = partial(client.morph, other, target, strengths={"hair": [0.3, 0.7]})
    assert newly_encoded(ask, 3) == 1
    assert newly_encoded(ask, 3) == 0
    assert largest_difference(ask(), slid) > 10


def test_no_request_waits_beside_an_idle_model(client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    """As many would where Triton does not notice that a model is free: for half a second each."""
    waits_s = []
    for count in range(90):
        start = time.monotonic()
        # The second and the third come while the first is on its way.
        asked = [client.submit(*pictures, strengths={"hair": 0.5}) for _ in range(1 + count % 3)]
        for future in asked:
            future.result(timeout=60)
        waits_s.append(time.monotonic() - start)
    assert sum(wait_s > statistics.median(waits_s) + 0.4 for wait_s in waits_s) <= 2


def test_a_single_frame_does_not_wait_for_the_end_of_a_long_sequence(
    client: MorphClient, pictures: npt.NDArray[np.uint8]
) -> None:
    film = client.submit(*pictures, steps=256)
    time.sleep(0.1)
    frame = client.morph(*pictures, strengths={"hair": 0.5})
    assert not film.done()
    assert frame.shape == (1, 64, 64, 3)
    assert film.result(timeout=60).shape == (256, 64, 64, 3)


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


GOOD = request()
BAD = {
    "both pictures": (request(height=60), "SOURCE: H must be a multiple of 8 from 8 to 2048, not 60"),
    "one picture": (GOOD | {"TARGET": request(width=60)["TARGET"]}, "TARGET: W must be a multiple of 8"),
    "two sizes": (GOOD | {"TARGET": request(height=72)["TARGET"]}, "TARGET: H must be 64 as in SOURCE, not 72"),
    "tiny": (request(height=1, width=1), "SOURCE: H must be a multiple of 8 from 8 to 2048, not 1"),
    "empty": (request(height=0), "SOURCE: H must be a multiple of 8 from 8 to 2048, not 0"),
    "wide": (request(width=8192), "SOURCE: W must be a multiple of 8 from 8 to 2048, not 8192"),
    "grey": (GOOD | {"SOURCE": np.zeros((1, 64, 64, 1), np.uint8)}, "unexpected shape for input 'SOURCE'"),
    "float": (GOOD | {"SOURCE": np.zeros((1, 64, 64, 3), np.float32)}, "'SOURCE' data-type is 'FP32'"),
    "missing": ({name: GOOD[name] for name in ("SOURCE", "STRENGTHS")}, "missing required input.*TARGET"),
    "groups": (request(groups=4), "unexpected shape for input 'STRENGTHS'"),
    "no frames": (request(steps=0), "STRENGTHS: S must be from 1 to 256, not 0"),
    "many frames": (request(steps=257), "STRENGTHS: S must be from 1 to 256, not 257"),
    "many pixels": (request(height=512, width=512, steps=65), "STRENGTHS: too many frames .* 65 of 512x512 pixels"),
    "nan": (request(strength=np.nan), "STRENGTHS: every value must be a number from 0 to 2, not nan"),
    "infinite": (request(strength=np.inf), "STRENGTHS: every value must be a number from 0 to 2, not inf"),
    "negative": (request(strength=-0.5), "STRENGTHS: every value must be a number from 0 to 2, not -0.5"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused_and_do_no_harm(served: Any, bad: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as refused:
        infer(served, bad, timeout_s=20)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert infer(served, GOOD).shape == (1, 2, 64, 64, 3)


def test_bad_pictures_time_and_again(served: Any) -> None:
    """What goes wrong only if a step fails before the next is scheduled does not go wrong at once."""
    bad = request(height=60)
    for _ in range(50):
        with pytest.raises(InferenceServerException, match="not 60"):
            infer(served, bad, timeout_s=20)
    assert infer(served, GOOD).shape == (1, 2, 64, 64, 3)


def test_a_bad_request_fails_alone_among_many(served: Any) -> None:
    requests = [GOOD, request(strength=np.nan), request(height=60), GOOD] * 4

    def outcome(arrays: dict[str, npt.NDArray[Any]]) -> str:
        try:
            infer(served, arrays)
        except InferenceServerException as error:
            return str(error.message())
        return "answered"

    with ThreadPoolExecutor(len(requests)) as pool:
        outcomes = list(pool.map(outcome, requests))
    for wanted, found in zip(["answered", "not nan", "not 60", "answered"] * 4, outcomes, strict=True):
        assert wanted in found


@pytest.mark.slow
def test_branches_wiring_agrees(served: Any, pictures: npt.NDArray[np.uint8]) -> None:
    source, target = pictures[:, None]
    strengths = np.array([[[0, 0, 0], [1, 0, 0.5], [2, 1, 1]]], np.float32)
    with (
        TritonServer(served.repository, models=["morph_branches"]) as server,
        MorphClient(server.grpc_url, model_name="morph_branches") as client,
    ):
        frames = client.morph(source[0], target[0], strengths=strengths[0])
        branches = replace(served, url=server.grpc_url)
        with pytest.raises(InferenceServerException, match="not 60"):
            infer(branches, request(height=60), model="morph_branches")
        assert infer(branches, GOOD, model="morph_branches").shape == (1, 2, 64, 64, 3)
    assert largest_difference(frames, served.expected(source, target, strengths)[0]) <= 1


def test_deadline(served: Any, client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(served.url) as hasty:
        assert hasty.groups == GROUPS
        hasty.timeout_s = 0.001
        with pytest.raises(DeadlineError, match=r"0\.001 s"):
            hasty.morph(*pictures)
        with pytest.raises(DeadlineError, match=r"0\.001 s"):
            hasty.submit(*pictures).result(timeout=60)
    assert client.ready(), "the server outlives requests that were given up"
