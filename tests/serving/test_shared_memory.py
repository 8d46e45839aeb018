"""Pictures and frames in shared memory: the same frames, and nothing left of it on this machine or in the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient

from homomorph_client import (
    AsyncMorphClient,
    DeadlineError,
    MorphClient,
    OverloadedError,
    RequestError,
    ServerUnavailableError,
    SettingsError,
    SharedMemoryError,
)
from homomorph_client import shared_memory as shared_memory_module
from homomorph_client.shared_memory_key import key_header
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server

Blended = Callable[[int], npt.NDArray[np.uint8]]


def registered(url: str) -> dict[str, int]:
    """Return the names and sizes of the regions that a server has mapped."""
    with InferenceServerClient(url) as triton:
        regions = triton.get_system_shared_memory_status(headers=key(url)).regions
    return {name: region.byte_size for name, region in regions.items()}


def key(url: str) -> dict[str, str]:
    """Return the header that a server of this user wants from who shares memory with it."""
    return dict(key_header(int(url.rpartition(":")[2])))


def left_behind() -> set[str]:
    """Return what clients have left on this machine."""
    return {path.name for path in Path("/dev/shm").glob("homomorph-*")}


def close_to(frames: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> bool:
    return frames.shape == expected.shape and np.abs(frames.astype(int) - expected).max() <= 1


@pytest.fixture
def client(blender: TritonServer) -> Iterator[MorphClient]:
    """A client that shares memory with the blender; of it, nothing may be left."""
    with MorphClient(blender.grpc_url, shared_memory=True) as client:
        yield client
    assert registered(blender.grpc_url) == {}
    assert left_behind() == set()


def test_frames_are_those_of_messages(served: Any, pictures: npt.NDArray[np.uint8]) -> None:
    strengths = np.random.default_rng(0).uniform(0, 2, (5, 3)).astype(np.float32)

    async def asked(url: str) -> list[npt.NDArray[np.uint8]]:
        async with AsyncMorphClient(url, shared_memory=True) as other:
            one = other.morph(*pictures, strengths=strengths)
            return list(await asyncio.gather(one, other.edit(pictures[0], {"hair": "blond"}, steps=3)))

    with MorphClient(served.url) as plain, MorphClient(served.url, shared_memory=True) as client:
        morph, edit = plain.morph(*pictures, strengths=strengths), plain.edit(pictures[0], {"hair": "blond"}, steps=3)
        assert np.array_equal(client.morph(*pictures, strengths=strengths), morph)
        assert np.array_equal(client.edit(pictures[0], {"hair": "blond"}, steps=3), edit)
        assert np.array_equal(client.submit(*pictures, strengths=strengths, urgent=True).result(timeout=60), morph)
        assert close_to(np.stack(list(client.stream(*pictures, strengths=strengths))), morph)
    there, changed = asyncio.run(asked(served.url))
    assert close_to(there, morph)
    assert close_to(changed, edit)
    assert registered(served.url) == {}
    assert left_behind() == set()


def test_a_region_is_used_again_and_has_no_name(
    blender: TritonServer, client: MorphClient, pictures: npt.NDArray[np.uint8], blended: Blended
) -> None:
    seen = []
    for steps in (2, 9, 3):
        assert close_to(client.morph(*pictures, steps=steps), blended(steps))
        seen.append(registered(blender.grpc_url))
        assert left_behind() == set(), "a client that is killed leaves nothing"
    assert len(seen[0]) == 1
    assert seen[0] == seen[1] == seen[2]
    assert len(client.morph(*pictures, steps=100)) == 100
    ((name, size),) = registered(blender.grpc_url).items()
    assert name not in seen[0], "too small for so many frames"
    assert size >= 100 * 64 * 64 * 3


def test_threads_do_not_mix(client: MorphClient, pictures: npt.NDArray[np.uint8], blended: Blended) -> None:
    with ThreadPoolExecutor(8) as pool:
        films = list(pool.map(lambda steps: client.morph(*pictures, steps=steps), [2, 3, 4, 5] * 3))
    futures = [client.submit(*pictures, steps=steps) for steps in (2, 3, 4, 5)]
    for frames in [*films, *(future.result(timeout=60) for future in futures)]:
        assert close_to(frames, blended(len(frames)))


def test_memory_of_a_request_that_was_given_up_is_not_touched_while_the_server_uses_it(
    blender: TritonServer, client: MorphClient, pictures: npt.NDArray[np.uint8], blended: Blended
) -> None:
    assert close_to(client.morph(*pictures, steps=3), blended(3))
    with pytest.raises(DeadlineError, match=r"0\.2 s"):
        client.morph(*pictures[::-1], steps=40, timeout_s=0.2)
    future = client.submit(*pictures[::-1], steps=41)
    time.sleep(0.1)
    assert future.cancel()
    for steps in (3, 40, 41):
        assert close_to(client.morph(*pictures, steps=steps), blended(steps)), "not what the others asked for"
    with pytest.raises(DeadlineError):
        client.morph(*pictures, steps=50, timeout_s=0.2)
    # On closing, the client waits for the server to let go of this one; the fixture looks.


def test_errors_of_the_server(
    blender: TritonServer, client: MorphClient, pictures: npt.NDArray[np.uint8], blended: Blended
) -> None:
    with (
        MorphClient(blender.grpc_url, shared_memory=True, picture_size=2048) as large,
        pytest.raises(RequestError, match="too many frames for their size"),
    ):
        large.morph(*pictures, steps=2)
    assert close_to(client.morph(*pictures, steps=2), blended(2))


def test_asyncio_after_a_deadline(blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Blended) -> None:
    async def ask() -> npt.NDArray[np.uint8]:
        async with AsyncMorphClient(blender.grpc_url, shared_memory=True) as client:
            with pytest.raises(DeadlineError):
                await client.morph(*pictures[::-1], steps=40, timeout_s=0.2)
            return await client.morph(*pictures, steps=40)

    assert close_to(asyncio.run(ask()), blended(40))
    assert registered(blender.grpc_url) == {}


def test_a_server_that_was_started_anew(
    blender_repository: Path, pictures: npt.NDArray[np.uint8], blended: Blended
) -> None:
    async def again(client: AsyncMorphClient) -> npt.NDArray[np.uint8]:
        return await client.morph(*pictures, steps=3)

    with TritonServer(blender_repository) as server, MorphClient(server.grpc_url, shared_memory=True) as client:
        assert close_to(client.morph(*pictures, steps=3), blended(3))
        server.stop()
        with pytest.raises(ServerUnavailableError):
            client.morph(*pictures, steps=3)
        with TritonServer(
            blender_repository,
            grpc_port=server.ports["grpc"],
            metrics_port=server.ports["metrics"],
        ):
            assert close_to(client.morph(*pictures, steps=3), blended(3))
            with InferenceServerClient(server.grpc_url) as triton:
                triton.unregister_system_shared_memory(
                    headers=key(server.grpc_url)
                )  # as if it had been started anew while the client was idle
            assert close_to(client.morph(*pictures, steps=3), blended(3))
    assert left_behind() == set()


def test_a_client_that_is_killed_leaves_nothing_on_this_machine(blender: TritonServer) -> None:
    code = (
        "import sys, numpy, time; from homomorph_client import MorphClient\n"
        "picture = numpy.zeros((64, 64, 3), 'uint8')\n"
        "MorphClient(sys.argv[1], shared_memory=True).morph(picture, picture, steps=2)\n"
        "print('done', flush=True); time.sleep(600)"
    )
    program = subprocess.Popen([sys.executable, "-c", code, blender.grpc_url], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "done\n"
    os.kill(program.pid, signal.SIGKILL)
    program.communicate()
    assert left_behind() == set()
    with InferenceServerClient(blender.grpc_url) as triton:
        triton.unregister_system_shared_memory(headers=key(blender.grpc_url))


def test_a_server_that_cannot_map_it(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region elsewhere than in /dev/shm is for the server what another machine's is: not there."""
    monkeypatch.setattr(shared_memory_module, "_FOLDER", tmp_path)
    with (
        MorphClient(blender.grpc_url, shared_memory=True) as client,
        pytest.raises(SharedMemoryError, match="on another machine, in another container or as another user"),
    ):
        client.morph(*pictures, steps=2)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shared_memory_module, "_FOLDER", tmp_path / "none")
    with (
        MorphClient(blender.grpc_url, shared_memory=True) as client,
        pytest.raises(SharedMemoryError, match=r"1 MiB of shared memory cannot be had in .*none: No such file"),
    ):
        client.morph(*pictures, steps=2)


def test_it_is_for_one_server() -> None:
    with pytest.raises(SettingsError, match="for one server, not for 2"):
        MorphClient("127.0.0.1:1,127.0.0.1:2", shared_memory=True)


def test_no_server() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    with (
        MorphClient("127.0.0.1:9", shared_memory=True, retries=0) as client,
        pytest.raises(ServerUnavailableError),
    ):
        client.morph(picture, picture)


def test_overloaded(blender_repository: Path, short_queues: Path, pictures: npt.NDArray[np.uint8]) -> None:
    with TritonServer(short_queues) as server:
        with MorphClient(server.grpc_url, shared_memory=True, retries=0) as client:
            futures = [client.submit(*pictures, steps=10 + i) for i in range(8)]
            errors = [future.exception(timeout=60) for future in futures]
        assert any(errors)
        assert all(error is None or isinstance(error, OverloadedError) for error in errors)
        assert registered(server.grpc_url) == {}
