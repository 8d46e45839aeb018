"""Frames that leave as they are decoded."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient

from homomorph_client import AsyncMorphClient, DeadlineError, HomomorphError, MorphClient, RequestError
from homomorph_export.serving import keeper
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server


def test_the_first_frame_arrives_long_before_the_last(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    with MorphClient(blender.grpc_url) as client:
        client.morph(*pictures)
        before = decoded(blender)
        stream = client.stream(*pictures, steps=50)
        frames = [next(stream)]
        assert decoded(blender) - before < 50 / 2, "most of the others are not even decoded"
        frames += stream
    assert decoded(blender) - before == 50
    assert np.abs(np.stack(frames).astype(int) - blended(50)).max() <= 1


def test_asyncio_gets_the_same(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    async def two_at_once() -> list[npt.NDArray[np.uint8]]:
        async with AsyncMorphClient(blender.grpc_url) as client:

            async def film(steps: int) -> npt.NDArray[np.uint8]:
                return np.stack([frame async for frame in client.stream(*pictures, steps=steps)])

            return list(await asyncio.gather(film(5), film(9)))

    for frames in asyncio.run(two_at_once()):
        assert np.abs(frames.astype(int) - blended(len(frames))).max() <= 1


def test_frames_equal_those_of_morph(served: Any, client: MorphClient, pictures: npt.NDArray[np.uint8]) -> None:
    strengths = np.random.default_rng(0).uniform(0, 2, (6, 3)).astype(np.float32)
    frames = np.stack(list(client.stream(*pictures, strengths=strengths)))
    assert np.abs(frames.astype(int) - client.morph(*pictures, strengths=strengths)).max() <= 1
    expected = served.expected(pictures[:1], pictures[1:], strengths[None])[0]
    assert np.abs(frames.astype(int) - expected).max() <= 1


def test_bad_requests_get_the_messages_of_morph(served: Any, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(served.url, picture_size=512) as client:
        with pytest.raises(RequestError) as refused_morph:
            client.morph(*pictures, steps=65)
        with pytest.raises(RequestError, match="STRENGTHS: too many frames") as refused_stream:
            list(client.stream(*pictures, steps=65))
        assert str(refused_stream.value) == str(refused_morph.value)
        assert np.stack(list(client.stream(*pictures, steps=2))).shape == (2, 512, 512, 3)


def test_a_bad_stream_fails_alone(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with (
        MorphClient(blender.grpc_url) as client,
        MorphClient(blender.grpc_url, picture_size=2048) as other,
    ):
        good = client.stream(*pictures, steps=20)
        with pytest.raises(RequestError, match="SOURCE: too many pictures for their size"):
            list(other.stream(*pictures, steps=2))
        assert len(list(good)) == 20


def decoded(server: TritonServer) -> int:
    """Return how many frames the server's decoder has been asked for one by one."""
    with InferenceServerClient(server.grpc_url) as triton:
        (statistics,) = triton.get_inference_statistics("decoder").model_stats
        return int(statistics.inference_count)


@pytest.mark.parametrize("way", ["closed", "dropped", "client closed", "deadline", "asyncio"])
def test_a_client_that_goes_stops_the_work(blender: TritonServer, pictures: npt.NDArray[np.uint8], way: str) -> None:
    before = decoded(blender)
    with MorphClient(blender.grpc_url) as client:
        if way == "closed":
            with closing(client.stream(*pictures, steps=200)) as frames:
                next(frames)
        elif way == "dropped":
            next(client.stream(*pictures, steps=200))
        elif way == "client closed":
            frames = client.stream(*pictures, steps=200)
            next(frames)
        elif way == "deadline":
            with pytest.raises(DeadlineError, match=r"0\.5 s"):
                list(client.stream(*pictures, steps=200, timeout_s=0.5))
        else:

            async def first() -> None:
                async with (
                    AsyncMorphClient(blender.grpc_url) as other,
                    aclosing(other.stream(*pictures, steps=200)) as frames,
                ):
                    await anext(frames)

            asyncio.run(first())
    time.sleep(0.5)
    stopped = decoded(blender)
    assert stopped - before < 100
    time.sleep(0.5)
    assert decoded(blender) == stopped
    with MorphClient(blender.grpc_url) as client:
        assert len(list(client.stream(*pictures, steps=2))) == 2


def test_more_streams_than_are_answered_at_once(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(blender.grpc_url) as client, ThreadPoolExecutor(12) as pool:
        films = list(pool.map(lambda steps: list(client.stream(*pictures, steps=steps)), range(2, 14)))
    assert [len(film) for film in films] == list(range(2, 14))


def test_an_urgent_stream_holds_the_others_up(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    arrivals_s: list[float] = []

    def watch() -> int:
        for frame in client.stream(*pictures, steps=60):
            assert frame.shape == (64, 64, 3)
            arrivals_s.append(time.monotonic())
        return len(arrivals_s)

    with MorphClient(blender.grpc_url) as client, ThreadPoolExecutor(3) as pool:
        client.served_model("morph_stream")
        films = [pool.submit(watch) for _ in range(3)]
        while len(arrivals_s) < 12:
            time.sleep(0.01)
        frames = client.stream(*pictures, steps=20, urgent=True)
        next(frames)
        start = time.monotonic()
        assert len(list(frames)) == 19
        end = time.monotonic()
        for film in films:
            film.result(timeout=60)
    assert len(arrivals_s) == 3 * 60, "those held up lose nothing"
    meanwhile = sum(start < arrival < end for arrival in arrivals_s)
    assert meanwhile <= 6, "at most what was on its way: in turn with the others it would be three times 19"


@pytest.mark.parametrize("kind", [MorphClient, AsyncMorphClient])
def test_streams_end_where_their_server_dies(
    blender_repository: Path, pictures: npt.NDArray[np.uint8], kind: type[MorphClient | AsyncMorphClient]
) -> None:
    failed: list[HomomorphError] = []

    async def frames(client: MorphClient | AsyncMorphClient) -> int:
        if isinstance(client, MorphClient):
            return len(list(client.stream(*pictures, steps=2)))
        return len([frame async for frame in client.stream(*pictures, steps=2)])

    async def ask(url: str) -> None:
        client = kind(url, timeout_s=5)
        try:
            while await frames(client) == 2:
                pass
        except HomomorphError as error:
            failed.append(error)

    with TritonServer(blender_repository, models=("morph_stream",)) as server:
        (triton,) = keeper.children(server._keeper.pid).keys() - {server._keeper.pid}
        asking = [threading.Thread(target=asyncio.run, args=(ask(server.grpc_url),), daemon=True) for _ in range(4)]
        for thread in asking:
            thread.start()
        time.sleep(2)
        os.kill(triton, signal.SIGSTOP)  # the keeper then kills it
        for thread in asking:
            thread.join(60)
        assert len(failed) == 4, "a stream waits beyond its deadline"
