"""What clients see when a model's process dies under a running server, and when a model's version is replaced."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from homomorph_client import MorphClient, ServerUnavailableError
from homomorph_client.errors import ServerError
from homomorph_export.serving.control import ControlError
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server


@pytest.fixture
def repository(blender_repository: Path, tmp_path: Path) -> Path:
    """A copy of the blender's repository, to change."""
    return Path(shutil.copytree(blender_repository, tmp_path / "repository"))


def process_of(repository: Path, model: str) -> int:
    """Return the id of the process that runs a model."""
    for folder in Path("/proc").glob("[0-9]*"):
        command = (folder / "cmdline").read_bytes() if (folder / "cmdline").exists() else b""
        if command.split(b"\0")[0].endswith(b"python_backend_stub") and f"{repository}/{model}/".encode() in command:
            return int(folder.name)
    raise AssertionError(f"{model} does not run")


@pytest.mark.parametrize("shared_memory", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_models_process_that_is_killed(
    repository: Path, pictures: npt.NDArray[np.uint8], shared_memory: bool
) -> None:
    """Triton would say that it is ready, and refuse for ever; so the server ends, and is started again."""
    with (
        TritonServer(repository) as server,
        MorphClient(server.grpc_url, shared_memory=shared_memory, timeout_s=30) as client,
    ):
        assert len(client.morph(*pictures, steps=2)) == 2
        timer = threading.Timer(0.3, lambda: os.kill(process_of(repository, "morpher"), signal.SIGKILL))
        timer.start()
        with pytest.raises(ServerUnavailableError):
            client.morph(*pictures, steps=100)
        timer.join()
        with pytest.raises(ServerError, match=r"stopped by itself .*: the process of a model has died"):
            server.wait()
        assert not client.ready()
        ports = {f"{service}_port": port for service, port in server.ports.items()}
        with TritonServer(repository, **ports):  # type: ignore[arg-type]
            assert len(client.morph(*pictures, steps=3)) == 3


@contextmanager
def under_load(url: str, pictures: npt.NDArray[np.uint8]) -> Iterator[Callable[[], npt.NDArray[np.uint8]]]:
    """Ask from four threads, where no request may fail; yields what returns the frames of a request sent after that."""
    stopped = threading.Event()
    latest: list[tuple[float, npt.NDArray[np.uint8]]] = []

    def ask() -> None:
        while not stopped.is_set():
            sent = time.monotonic()
            latest.append((sent, client.morph(*pictures, steps=2)))
            del latest[:-8]

    def frames() -> npt.NDArray[np.uint8]:
        now = time.monotonic()
        while True:
            assert not any(asker.done() for asker in askers), "a request failed"
            answers = [answer for sent, answer in latest if sent > now]
            if answers:
                return answers[0]
            time.sleep(0.01)

    with MorphClient(url, retries=0) as client, ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask) for _ in range(4)]
        try:
            yield frames
        finally:
            stopped.set()
        for asker in askers:
            asker.result(timeout=60)


def test_versions_replaced_under_load(
    repository: Path, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    first = (repository / "morpher" / "1" / "blender.py").read_text()
    broken = {"3": "raise OSError('no such weights')", "4": "import os; os.abort()"}
    with (
        TritonServer(repository) as server,
        under_load(server.grpc_url, pictures) as frames,
    ):
        assert np.abs(frames().astype(int) - blended(2)).max() <= 1
        negative = first.replace("np.rint(frames)", "np.rint(255 - frames)")
        assert negative != first
        for version, code in {"2": negative, **broken}.items():
            shutil.copytree(repository / "morpher" / "1", repository / "morpher" / version)
            (repository / "morpher" / version / "blender.py").write_text(code)
            if version in broken:
                with pytest.raises(ControlError, match=f"version {version} is at UNAVAILABLE state"):
                    server.load("morpher")
            else:
                server.load("morpher")
            assert np.abs(255 - frames().astype(int) - blended(2)).max() <= 1, "the newest that loads"
