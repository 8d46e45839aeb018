"""The systems that are compared, each with the same request: started, warm, and found to give the same frames."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from homomorph.progress import Progress, Report
from homomorph_bench.serving import process_usage, triton_time
from homomorph_bench.serving.exported import ExportedMorph
from homomorph_bench.serving.load_generator import RequestFailed
from homomorph_bench.serving.peers import wire
from homomorph_bench.serving.peers.process import Peer
from homomorph_bench.serving.transports import GrpcRequest, HttpRequest
from homomorph_client import MorphClient
from homomorph_client.errors import ServerError
from homomorph_export.contract import MAX_BATCH_SIZE
from homomorph_export.serving.server import TritonServer

IN_PROCESS = "in process"
TRITON = "Triton"
CLIENT = "Triton through MorphClient"
SHARED = f"{CLIENT}, shared memory"
PEERS = {"pytriton": "pytriton", "LitServe": "litserve", "FastAPI": "fastapi"}
"""Modules in `peers`, by name."""

DEADLINE_S = 1.0
"""After which nobody wants an answer, where that is what matters."""
_START_TIMEOUT_S = 300.0
_LARGEST_DIFFERENCE = 1
"""In grey levels: what rounding may change between numbers of threads and sizes of batches."""


class Request(Protocol):
    """What can be sent to a system, as often as is wanted."""

    async def send(self) -> bytes:
        """Send it and return the whole answer."""

    def frames(self, answer: bytes) -> bytes:
        """Return the frames' bytes in an answer."""

    async def close(self) -> None:
        """Drop the connections."""


@dataclass(frozen=True)
class Inputs:
    """What is asked for."""

    source: npt.NDArray[np.uint8]
    """[1, H, W, 3]."""
    target: npt.NDArray[np.uint8]
    """The same."""
    strengths: npt.NDArray[np.float32]
    """[1, S, K]."""

    @classmethod
    def random(cls, picture_size: int, frames: int, branches: int) -> Inputs:
        """Return random pictures and an even ramp of all strengths; time depends on neither."""
        pixels = np.random.default_rng(0).integers(0, 256, (2, 1, picture_size, picture_size, 3), dtype=np.uint8)
        ramp = np.linspace(0, 1, frames, dtype=np.float32)[None, :, None]
        return cls(pixels[0], pixels[1], np.repeat(ramp, branches, axis=2))

    def repeated(self, count: int) -> Inputs:
        """Return the same with a batch axis of `count`."""
        return Inputs(
            np.repeat(self.source, count, axis=0),
            np.repeat(self.target, count, axis=0),
            np.repeat(self.strengths, count, axis=0),
        )

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tensors by the names of the served model's inputs."""
        return {"SOURCE": self.source, "TARGET": self.target, "STRENGTHS": self.strengths}

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the tensors for torch."""
        source, target, strengths = (torch.from_numpy(array) for array in self.arrays().values())
        return source, target, strengths


@dataclass(frozen=True)
class ComparedSystem:
    """One way to get frames."""

    name: str
    request: Request
    batches: Request | None
    """A request for `MAX_BATCH_SIZE` sequences at once, where the system takes one."""
    dated: Request
    """The request that says that nobody wants its answer after `DEADLINE_S`, where the system can be told."""
    roots: frozenset[int]
    """Ids of the processes that its server was started with; none in process."""
    sleeps: bool = False
    """Whether its processes are stopped while it is not measured: a peer looks for work even if there is none, which
    costs whoever is measured beside it."""

    @contextlib.asynccontextmanager
    async def awake(self) -> AsyncIterator[None]:
        """Let it run, and be warm."""
        if self.sleeps:
            process_usage.send_signal(self.roots, signal.SIGCONT)
        try:
            await self.request.send()
            yield
        finally:
            if self.sleeps:
                process_usage.send_signal(self.roots, signal.SIGSTOP)


class InProcess:
    """The exported files, called where the load generator runs: no request, no copy."""

    def __init__(self, morph: ExportedMorph, inputs: Inputs) -> None:
        self._morph = morph
        self._tensors = inputs.tensors()
        morph.warm_up(*self._tensors)

    async def send(self) -> bytes:
        """Compute the frames. Until they are there, nothing else runs: a queue with one server."""
        return self._morph(*self._tensors).numpy().tobytes()

    def frames(self, answer: bytes) -> bytes:
        """Return the answer."""
        return answer

    async def close(self) -> None:
        """Nothing is open."""


class ThroughClient:
    """`MorphClient`, as a program uses it: pictures in, frames out."""

    def __init__(self, client: MorphClient, inputs: Inputs) -> None:
        self._client = client
        self._inputs = inputs

    async def send(self) -> bytes:
        """Morph. The client blocks, so this is for one request at a time."""
        inputs = self._inputs
        return self._client.morph(inputs.source[0], inputs.target[0], strengths=inputs.strengths[0]).tobytes()

    def frames(self, answer: bytes) -> bytes:
        """Return the answer."""
        return answer

    async def close(self) -> None:
        """The connection is another's."""


@dataclass(frozen=True)
class Running:
    """All systems, ready to be measured."""

    systems: dict[str, ComparedSystem]
    """By name, the one in process first."""
    url: str
    """host:port of Triton's gRPC."""
    metrics_url: str
    """host:port of Triton's metrics."""
    inputs: Inputs
    """What every request asks for."""

    async def counts(self) -> triton_time.Counts:
        """Return what Triton has counted."""
        return await triton_time.counts(self.url, self.metrics_url)


@contextlib.asynccontextmanager
async def started(
    repository: Path,
    *,
    picture_size: int | None,
    frames: int,
    peers: bool,
    gpus: Sequence[int] = (),
    report: Report,
) -> AsyncIterator[Running]:
    """Start every system.

    Args:
        repository: folder that `homomorph export` wrote.
        picture_size: height and width in pixels of what is asked for; None is what the model was trained at.
        frames: S of the same.
        peers: whether the peers take part.
        gpus: where Triton's models are placed, and on the first of them everything else; none for the CPU.
        report: called with what is done next.

    Raises:
        ServerError: a server does not start, refuses the request, or answers other frames.
        PictureError: `picture_size` is no multiple of the model's stride.
    """
    async with contextlib.AsyncExitStack() as stack:
        report(Progress(f"starting {TRITON}"))
        before = process_usage.children()
        server = stack.enter_context(TritonServer(repository, gpus=gpus))
        roots = {TRITON: frozenset(process_usage.children() - before)}
        running: dict[str, Peer] = {}
        for name, module in PEERS.items() if peers else ():
            report(Progress(f"starting {name}"))
            running[name] = stack.enter_context(Peer(module, repository, device_of(gpus)))
            roots[name] = frozenset([running[name].pid])
            await _until_listening(running[name])

        report(Progress("loading the exported files in process"))
        client = stack.enter_context(MorphClient(server.grpc_url, picture_size=picture_size))
        sharing = stack.enter_context(MorphClient(server.grpc_url, picture_size=picture_size, shared_memory=True))
        model = client.served_model()
        inputs = Inputs.random(model.picture_size, frames, len(model.groups))
        several = inputs.repeated(MAX_BATCH_SIZE)
        morph = ExportedMorph(repository, device_of(gpus))
        alone = InProcess(morph, inputs)
        triton, by_8 = (GrpcRequest(server.grpc_url, "morph", x.arrays()) for x in (inputs, several))
        dated = GrpcRequest(server.grpc_url, "morph", inputs.arrays(), timeout_s=DEADLINE_S)
        stack.push_async_callback(dated.close)
        systems = [
            ComparedSystem(IN_PROCESS, alone, InProcess(morph, several), alone, frozenset()),
            ComparedSystem(TRITON, triton, by_8, dated, roots[TRITON]),
        ]
        for name, through in ((CLIENT, client), (SHARED, sharing)):
            by_client = ThroughClient(through, inputs)
            systems.append(ComparedSystem(name, by_client, None, by_client, roots[TRITON]))
        for name, peer in running.items():
            request: GrpcRequest | HttpRequest
            if name == "pytriton":
                request = GrpcRequest(f"{peer.host}:{peer.port}", "morph", inputs.arrays())
            else:
                body = wire.encode(inputs.source, inputs.target, inputs.strengths)
                request = HttpRequest(peer.host, peer.port, "/predict", body)
            systems.append(ComparedSystem(name, request, None, request, roots[name], sleeps=True))
        for system in systems:
            stack.push_async_callback(system.request.close)
            if system.batches:
                stack.push_async_callback(system.batches.close)

        expected = await systems[0].request.send()
        for system in systems:
            report(Progress(f"comparing {system.name}"))
            await _compare(system.name, system.request, expected, running.get(system.name))
            if system.batches:
                await _compare(system.name, system.batches, expected * MAX_BATCH_SIZE)
        for system in systems:
            if system.sleeps:
                stack.callback(process_usage.send_signal, system.roots, signal.SIGCONT)  # so that it can be told to end
                process_usage.send_signal(system.roots, signal.SIGSTOP)
        yield Running({system.name: system for system in systems}, server.grpc_url, server.metrics_url, inputs)


def device_of(gpus: Sequence[int]) -> str:
    """Return what systems with one device compute on, as torch names it."""
    return f"cuda:{gpus[0]}" if gpus else "cpu"


async def _compare(name: str, request: Request, expected: bytes, peer: Peer | None = None) -> None:
    """Hold the frames of the first answer against those expected; a peer that listens may still be loading."""
    deadline = time.monotonic() + (_START_TIMEOUT_S if peer else 0)
    while True:
        try:
            frames = request.frames(await request.send())
            break
        except RequestFailed as error:
            if time.monotonic() > deadline:
                raise ServerError(f"{name} refused the request that is to be measured: {error}") from error
        if peer:
            peer.check()
        await asyncio.sleep(0.1)
    if len(frames) != len(expected):
        raise ServerError(f"{name} answered {len(frames)} bytes of frames, not {len(expected)}")
    got, wanted = (np.frombuffer(data, np.uint8).astype(np.int16) for data in (frames, expected))
    if (largest := int(np.abs(got - wanted).max())) > _LARGEST_DIFFERENCE:
        raise ServerError(f"{name} answers other frames: they are {largest} grey levels off")


async def _until_listening(peer: Peer) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        peer.check()
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(peer.host, peer.port)
            writer.close()
            return
        if time.monotonic() > deadline:
            raise ServerError(f"the peer {peer.name} did not listen within {_START_TIMEOUT_S:g} s")
        await asyncio.sleep(0.1)
