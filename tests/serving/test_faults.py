"""What clients see when the real server dies, stops, or has too much to do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient

from homomorph_client import HomomorphError, MorphClient, OverloadedError, RequestError, ServerUnavailableError
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server


def kill(server: TritonServer) -> None:
    """End tritonserver itself as the kernel does when memory runs out."""
    for folder in Path("/proc").glob("[0-9]*"):
        command = (folder / "cmdline").read_bytes() if (folder / "cmdline").exists() else b""
        if command.split(b"\0")[0].endswith(b"bin/tritonserver") and f"={server.ports['grpc']}".encode() in command:
            os.kill(int(folder.name), signal.SIGKILL)


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["morph", "stream"])
def test_a_server_that_is_killed_and_started_again(
    blender_repository: Path, pictures: npt.NDArray[np.uint8], streaming: bool
) -> None:
    models = ("morph", "morph_stream")
    with TritonServer(blender_repository, models=models) as server, MorphClient(server.grpc_url) as client:
        assert len(client.morph(*pictures, steps=2)) == 2
        ask: Callable[[int], Any] = (
            (lambda steps: list(client.stream(*pictures, steps=steps, timeout_s=20)))
            if streaming
            else (lambda steps: client.morph(*pictures, steps=steps, timeout_s=20))
        )
        timer = threading.Timer(0.5, kill, [server])
        timer.start()
        with pytest.raises(ServerUnavailableError):  # at once: at its deadline it would be another error
            ask(200)
        assert not client.ready()
        timer.join()
        server.stop()
        with TritonServer(
            blender_repository,
            models=models,
            grpc_port=server.ports["grpc"],
            metrics_port=server.ports["metrics"],
        ):
            assert len(ask(3)) == 3


def test_requests_on_their_way_finish_when_the_server_stops(
    blender_repository: Path, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    with (
        TritonServer(blender_repository, models=("morph", "morph_stream")) as server,
        MorphClient(server.grpc_url, retries=0) as client,
    ):
        assert len(client.morph(*pictures, steps=2)) == 2
        stream = client.stream(*pictures, steps=40)
        first = next(stream)
        futures = [client.submit(*pictures, steps=steps) for steps in (20, 21, 22, 23)]
        time.sleep(0.2)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        for future, steps in zip(futures, (20, 21, 22, 23), strict=True):
            assert np.abs(future.result(timeout=20).astype(int) - blended(steps)).max() <= 1
        frames = [first, *stream]
        assert np.abs(np.stack(frames).astype(int) - blended(40)).max() <= 1
        with pytest.raises(ServerUnavailableError):
            client.morph(*pictures, steps=2)
        stopping.join()


def test_a_full_queue(
    short_queues: Path, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    with TritonServer(short_queues) as server:
        with MorphClient(server.grpc_url, retries=0) as client:
            futures = [client.submit(*pictures, steps=10 + i) for i in range(8)]
            wait(futures, timeout=60)
            refused = [future.exception() for future in futures if future.exception()]
            answered = [future.result() for future in futures if not future.exception()]
            assert refused
            assert answered
            for error in refused:
                assert isinstance(error, OverloadedError)
                assert "is overloaded: ask again later" in str(error)
            for frames in answered:
                assert np.abs(frames.astype(int) - blended(len(frames))).max() <= 1
        with MorphClient(server.grpc_url, retries=4) as client:
            futures = [client.submit(*pictures, steps=10 + i) for i in range(5)]
            assert [len(future.result(timeout=60)) for future in futures] == list(range(10, 15)), "asked again, later"


def test_who_is_looking_overtakes_who_waits(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(blender.grpc_url) as client:
        client.morph(*pictures, steps=2)  # the server learns how long a frame takes
        order: list[str] = []
        films = [client.submit(*pictures, steps=40) for _ in range(3)]
        for film in films:
            film.add_done_callback(lambda _: order.append("film"))
        time.sleep(0.3)
        calm = client.submit(*pictures, strengths={"skin": [0.5]})
        urgent = client.submit(*pictures, strengths={"skin": [0.5, 1]}, urgent=True)
        calm.add_done_callback(lambda _: order.append("calm"))
        urgent.add_done_callback(lambda _: order.append("urgent"))
        wait([*films, calm, urgent], timeout=60)
    assert order[:2] == ["urgent", "calm"], "before the films that came first, and the short one before the long ones"


def test_sixteen_threads_of_good_and_bad(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    with (
        MorphClient(blender.grpc_url) as client,
        MorphClient(blender.grpc_url, picture_size=2048) as large,
        MorphClient(blender.grpc_url, model_name="decoder") as foreign,
    ):

        def ask(index: int) -> npt.NDArray[np.uint8] | HomomorphError:
            try:
                if index % 4 == 1:
                    return large.morph(*pictures, steps=2)
                if index % 4 == 2:
                    return foreign.morph(*pictures, steps=2)
                if index % 4 == 3:
                    return np.stack(list(client.stream(*pictures, steps=2 + index % 5)))
                return client.morph(*pictures, steps=2 + index % 5)
            except HomomorphError as error:
                return error

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(64)))
    for index, answer in enumerate(answers):
        if index % 4 in (1, 2):
            assert isinstance(answer, RequestError)
            assert ("too many frames for their size" if index % 4 == 1 else "'decoder' is not one") in str(answer)
        else:
            assert isinstance(answer, np.ndarray), answer
            assert np.abs(answer.astype(int) - blended(2 + index % 5)).max() <= 1


def test_the_response_cache_keeps_encoded_pictures(
    blender_repository: Path, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    def hits() -> int:
        with InferenceServerClient(server.grpc_url) as triton:
            statistics = triton.get_inference_statistics("encoder_pair").model_stats[0]
        return int(statistics.inference_stats.cache_hit.count)

    with (
        TritonServer(blender_repository, models=["morph_stream"], cache_mib=16) as server,
        MorphClient(server.grpc_url) as client,
    ):
        for steps in (2, 3, 4):
            frames = np.stack(list(client.stream(*pictures, steps=steps)))
            assert np.abs(frames.astype(int) - blended(steps)).max() <= 1
        assert hits() == 2
        assert np.array_equal(np.stack(list(client.stream(*pictures[::-1], steps=2))), blended(2)[::-1])
        assert hits() == 2


@pytest.mark.slow
def test_clients_go_on_when_one_of_two_servers_stops(
    blender: TritonServer, blender_repository: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    with (
        TritonServer(blender_repository) as second,
        MorphClient([blender.grpc_url, second.grpc_url]) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        stopped = threading.Event()

        def ask_until_it_has_stopped() -> int:
            count = 0
            while not stopped.is_set():
                count += len(client.morph(*pictures, steps=2)) == 2
            return count

        askers = [pool.submit(ask_until_it_has_stopped) for _ in range(4)]
        time.sleep(0.5)
        try:
            second.stop()
        finally:
            stopped.set()
        assert all(asker.result(timeout=60) > 1 for asker in askers)
