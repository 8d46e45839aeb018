"""The compared systems: start each, warm it up, and check that all answer the same request with the same frames."""

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
from torch.nn.functional import interpolate

from homomorph.progress import Progress, Report
from homomorph_bench.serving import process_usage, triton_time
from homomorph_bench.serving.exported import ExportedMorph
from homomorph_bench.serving.load_generator import RequestFailed
from homomorph_bench.serving.peers import wire
from homomorph_bench.serving.peers.process import Peer
from homomorph_bench.serving.transports import GrpcRequest, HttpRequest
from homomorph_client import MorphClient
from homomorph_client.errors import ServerError
from homomorph_client.names import HOMOMORPH
from homomorph_export.contract import MAX_BATCH_SIZE
from homomorph_export.manifest import exports
from homomorph_export.precision import TOLERANCES, Tolerance
from homomorph_export.serving.engine_choice import TORCHSCRIPT
from homomorph_export.serving.server import TritonServer

IN_PROCESS = "in process"
TRITON = "Triton"
CLIENT = "Triton through MorphClient"
SHARED = f"{CLIENT}, shared memory"
PEERS = {"pytriton": "pytriton", "LitServe": "litserve", "FastAPI": "fastapi"}
"""Modules in `peers`, by name."""

DEADLINE_S = 1.0
"""In the overload scenario, an answer counts only within this time."""
_START_TIMEOUT_S = 300.0
_ROUNDING = Tolerance(mean=1.0, max=1.0)
"""Largest differences between the frames of systems that compute in TorchScript: rounding depends on threads and batch
size."""


class Request(Protocol):
    """A request that can be sent to a system many times."""

    async def send(self) -> bytes:
        """Send the request and return the whole answer."""

    def frames(self, answer: bytes) -> bytes:
        """Return the frames' bytes in an answer."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True)
class Inputs:
    """Tensors of the measured request."""

    source: npt.NDArray[np.uint8]
    """[1, H, W, 3]."""
    target: npt.NDArray[np.uint8]
    """The same."""
    strengths: npt.NDArray[np.float32]
    """[1, S, K]."""

    @classmethod
    def random(cls, picture_size: int, frames: int, branches: int) -> Inputs:
        """Return random pictures, and strengths that rise evenly from 0 to 1; time depends on neither.

        The pictures are smooth, because an int8 export is not exact for random pixels.
        """
        noise = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
        smooth = interpolate(noise, (picture_size, picture_size), mode="bilinear")
        pixels = smooth.to(torch.uint8).movedim(1, -1).contiguous().numpy()
        ramp = np.linspace(0, 1, frames, dtype=np.float32)[None, :, None]
        return cls(pixels[:1], pixels[1:], np.repeat(ramp, branches, axis=2))

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
    """One of the compared systems and its requests."""

    name: str
    request: Request
    batch_request: Request | None
    """A request for `MAX_BATCH_SIZE` sequences at once; None if the system takes no batches."""
    deadline_request: Request
    """The request with a timeout of `DEADLINE_S`; the plain request if the system has no timeouts."""
    roots: frozenset[int]
    """Ids of the processes that its server was started with; none in process."""
    pause_when_idle: bool = False
    """Whether its processes are stopped while another system is measured: a peer polls for work when idle, which takes
    processor time from the others."""

    @contextlib.asynccontextmanager
    async def resumed(self) -> AsyncIterator[None]:
        """Resume the system's processes and send one request to warm it up; pause them again at the end."""
        if self.pause_when_idle:
            process_usage.signal_descendants(self.roots, signal.SIGCONT)
        try:
            await self.request.send()
            yield
        finally:
            if self.pause_when_idle:
                process_usage.signal_descendants(self.roots, signal.SIGSTOP)


class InProcess:
    """The exported files, called in the load generator's process: no request, no copy."""

    def __init__(self, morph: ExportedMorph, inputs: Inputs) -> None:
        self._morph = morph
        self._tensors = inputs.tensors()
        morph.warm_up(*self._tensors)

    async def send(self) -> bytes:
        """Compute the frames. This blocks the event loop: a queue with one server."""
        return self._morph(*self._tensors).numpy().tobytes()

    def frames(self, answer: bytes) -> bytes:
        """Return the answer."""
        return answer

    async def close(self) -> None:
        """Nothing is open."""


class ThroughClient:
    """`MorphClient`, called as in a user's program: pictures in, frames out."""

    def __init__(self, client: MorphClient, inputs: Inputs) -> None:
        self._client = client
        self._inputs = inputs

    async def send(self) -> bytes:
        """Morph with the client. This blocks the event loop, so only one request at a time makes sense."""
        inputs = self._inputs
        return self._client.morph(inputs.source[0], inputs.target[0], strengths=inputs.strengths[0]).tobytes()

    def frames(self, answer: bytes) -> bytes:
        """Return the answer."""
        return answer

    async def close(self) -> None:
        """The caller of the constructor closes the client."""


@dataclass(frozen=True)
class RunningSystems:
    """All systems, ready to be measured."""

    systems: dict[str, ComparedSystem]
    """By name; the system in process is the first."""
    url: str
    """host:port of Triton's gRPC."""
    metrics_url: str
    """host:port of Triton's metrics."""
    inputs: Inputs
    """Tensors of every request."""

    async def triton_counts(self) -> triton_time.Counts:
        """Return Triton's counters."""
        return await triton_time.read_counts(self.url, self.metrics_url)


@dataclass(frozen=True)
class SystemSettings:
    """The files that all systems serve, the measured request, and which systems are started."""

    repository: Path
    """Folder that `homomorph export` wrote."""
    frames: int
    """Length S of a sequence."""
    picture_size: int | None = None
    """Height and width of the pictures, in pixels; None: the size that the model was trained at."""
    peers: bool = True
    """Whether to start the peers too."""
    engines: Sequence[str] = ()
    """Runtimes for E and D; each gets a Triton of its own, beside the one that computes in TorchScript."""
    gpus: Sequence[int] = ()
    """GPUs for Triton's models; the other systems use the first of them. Empty: the CPU."""


@contextlib.asynccontextmanager
async def start_systems(settings: SystemSettings, report: Report) -> AsyncIterator[RunningSystems]:
    """Start every system; stop them when the context is left.

    Args:
        settings: which systems, and their request.
        report: called before each stage.

    Raises:
        ServerError: a server does not start, refuses the request, or answers other frames.
        PictureError: `picture_size` is no multiple of the model's stride.
    """
    repository, picture_size, gpus = settings.repository, settings.picture_size, settings.gpus
    async with contextlib.AsyncExitStack() as stack:
        roots: dict[str, frozenset[int]] = {}
        servers: dict[str, TritonServer] = {}
        with_engine = {f"{TRITON} with {engine}": engine for engine in settings.engines}
        for name, engine in {TRITON: TORCHSCRIPT, **with_engine}.items():
            report(Progress(f"starting {name}"))
            before = process_usage.children()
            servers[name] = stack.enter_context(TritonServer(repository, engine=engine, gpus=gpus))
            roots[name] = frozenset(process_usage.children() - before)
        server = servers[TRITON]
        running: dict[str, Peer] = {}
        for name, module in PEERS.items() if settings.peers else ():
            report(Progress(f"starting {name}"))
            running[name] = stack.enter_context(Peer(module, repository, device_of(gpus)))
            roots[name] = frozenset([running[name].pid])
            await _wait_for_port(running[name])

        report(Progress("loading the exported files in process"))
        client = stack.enter_context(MorphClient(server.grpc_url, picture_size=picture_size))
        sharing = stack.enter_context(MorphClient(server.grpc_url, picture_size=picture_size, shared_memory=True))
        model = client.served_model()
        inputs = Inputs.random(model.picture_size, settings.frames, len(model.groups))
        batch = inputs.repeated(MAX_BATCH_SIZE)
        morph = ExportedMorph(repository, device_of(gpus))
        in_process = InProcess(morph, inputs)
        systems = [ComparedSystem(IN_PROCESS, in_process, InProcess(morph, batch), in_process, frozenset())]
        for name, triton in servers.items():
            url = triton.grpc_url
            single, whole_batch = (GrpcRequest(url, x.arrays()) for x in (inputs, batch))
            with_deadline = GrpcRequest(url, inputs.arrays(), timeout_s=DEADLINE_S)
            stack.push_async_callback(with_deadline.close)
            systems.append(ComparedSystem(name, single, whole_batch, with_deadline, roots[name]))
        for name, morph_client in ((CLIENT, client), (SHARED, sharing)):
            through_client = ThroughClient(morph_client, inputs)
            systems.append(ComparedSystem(name, through_client, None, through_client, roots[TRITON]))
        for name, peer in running.items():
            request: GrpcRequest | HttpRequest
            if name == "pytriton":
                request = GrpcRequest(f"{peer.host}:{peer.port}", inputs.arrays())
            else:
                body = wire.encode(inputs.source, inputs.target, inputs.strengths)
                request = HttpRequest(peer.host, peer.port, "/predict", body)
            systems.append(ComparedSystem(name, request, None, request, roots[name], pause_when_idle=True))
        for system in systems:
            stack.push_async_callback(system.request.close)
            if system.batch_request:
                stack.push_async_callback(system.batch_request.close)

        reference = await systems[0].request.send()
        engine_tolerance = TOLERANCES[exports(repository)[HOMOMORPH]["precision"]]
        for system in systems:
            report(Progress(f"comparing {system.name}"))
            tolerance = engine_tolerance if system.name in with_engine else _ROUNDING
            await _check_frames(system.name, system.request, reference, tolerance, running.get(system.name))
            if system.batch_request:
                await _check_frames(system.name, system.batch_request, reference * MAX_BATCH_SIZE, tolerance)
        for system in systems:
            if system.pause_when_idle:
                # A stopped process cannot handle SIGTERM: resume it first at the end.
                stack.callback(process_usage.signal_descendants, system.roots, signal.SIGCONT)
                process_usage.signal_descendants(system.roots, signal.SIGSTOP)
        yield RunningSystems({system.name: system for system in systems}, server.grpc_url, server.metrics_url, inputs)


def device_of(gpus: Sequence[int]) -> str:
    """Return the torch device of systems that use one device: the first GPU, or the CPU."""
    return f"cuda:{gpus[0]}" if gpus else "cpu"


async def _check_frames(
    name: str, request: Request, reference: bytes, tolerance: Tolerance, peer: Peer | None = None
) -> None:
    """Compare the frames of the first answer with the reference; retry while a peer loads its model."""
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
    if len(frames) != len(reference):
        raise ServerError(f"{name} answered {len(frames)} bytes of frames, not {len(reference)}")
    pixels, reference_pixels = (np.frombuffer(data, np.uint8).astype(np.int16) for data in (frames, reference))
    difference = np.abs(pixels - reference_pixels)
    if not tolerance.allows(mean := float(difference.mean()), largest := int(difference.max())):
        raise ServerError(f"{name} answers other frames: they are {largest} grey levels off, {mean:.2f} on average")


async def _wait_for_port(peer: Peer) -> None:
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
