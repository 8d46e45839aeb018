"""Time saved by shared memory for large frames, and by the server's cache for known pictures and a slider's frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from homomorph.progress import Progress, Report
from homomorph_bench.results import Record, compared
from homomorph_bench.serving.exported import ExportedMorph
from homomorph_bench.serving.systems import CLIENT, SHARED, Inputs, device_of
from homomorph_bench.timing import time_in_turns
from homomorph_client import MorphClient
from homomorph_client.names import HOMOMORPH, MORPH, PIXEL, Method
from homomorph_export.serving.server import TritonServer

LARGE_SIZE = 512
"""Height and width of large pictures, in pixels."""
METHOD_NAMES: dict[Method, str] = {HOMOMORPH: "morph", PIXEL: "blend of pixels"}
"""Methods that are measured with large pictures, and their names in the records. Blending takes little computation, so
its time is mostly transport."""
CACHE_MIB = 64
CONCURRENCIES = {"one at a time": 1, "32 at once": 32}
"""Concurrent requests by case. A single request leaves cores idle, so less work does not always save time there."""
NEW_PICTURES, KNOWN_TARGET, KNOWN_PICTURES = "new pictures", "known target", "known pictures"
SLIDER = "one frame of a slider"


def measure_shortcuts(
    repository: Path,
    inputs: Inputs,
    *,
    gpus: Sequence[int],
    repeats: int,
    meta: dict[str, Any],
    report: Report,
) -> list[Record]:
    """Start a server with a cache, measure both savings, and return the records.

    Args:
        repository: folder that `homomorph export` wrote.
        inputs: of the requests in the other measurements.
        gpus: GPUs for the models; empty: the CPU.
        repeats: turns that count, at least 10.
        meta: of the run, written into every record.
        report: called before each stage.

    Raises:
        ServerError: the server does not start.
        HomomorphError: the server refuses a request.
    """
    with ExitStack() as stack:
        report(Progress("starting Triton with a cache"))
        models = [model for model in (MORPH, PIXEL) if (repository / model).is_dir()]
        server = stack.enter_context(TritonServer(repository, models=models, cache_mib=CACHE_MIB, gpus=gpus))
        report(Progress(f"{LARGE_SIZE} pixels, with and without shared memory"))
        clients = {
            name: stack.enter_context(
                MorphClient(server.grpc_url, picture_size=LARGE_SIZE, timeout_s=300, shared_memory=name == SHARED)
            )
            for name in (CLIENT, SHARED)
        }
        records = _large_frames(clients, inputs, repeats, meta)
        report(Progress("pictures that the server knows"))
        client = stack.enter_context(MorphClient(server.grpc_url, picture_size=inputs.source.shape[1]))
        records += _known_pictures(client, ExportedMorph(repository, device_of(gpus)), inputs, repeats, meta)
        report(Progress("a slider that moves"))
        return records + _slider(client, inputs, repeats, meta)


def _large_frames(clients: dict[str, MorphClient], inputs: Inputs, repeats: int, meta: dict[str, Any]) -> list[Record]:
    large = Inputs.random(LARGE_SIZE, *inputs.strengths.shape[1:])
    source, target = large.source[0], large.target[0]
    case_meta = {**meta, "picture_size": LARGE_SIZE, "pictures": "known: only the way that they are sent differs"}
    records = []
    for method, case in METHOD_NAMES.items():
        strengths = {"all": large.strengths[0, :, 0]} if method == PIXEL else large.strengths[0]

        def request(client: MorphClient, method: Method = method, strengths: Any = strengths) -> Callable[[], object]:
            return lambda: client.morph(source, target, strengths=strengths, method=method)

        timings = time_in_turns({name: request(client) for name, client in clients.items()}, repeats=repeats, warm_up=2)
        records += compared(timings, f"{case} of {LARGE_SIZE} pixels", baseline=CLIENT, meta=lambda _: case_meta)
    return records


_numbers = itertools.count(1)


def _new(picture: Any) -> Any:
    """Return a picture that was never sent before: write a new number into its corner."""
    changed = picture.copy()
    changed[0, :3] = np.frombuffer(np.uint64(next(_numbers)).tobytes() + b"\0", np.uint8).reshape(3, 3)
    return changed


def _known_pictures(
    client: MorphClient, morph: ExportedMorph, inputs: Inputs, repeats: int, meta: dict[str, Any]
) -> list[Record]:
    source, target = inputs.source[0], inputs.target[0]

    def requests(
        concurrency: int, make_source: Callable[[], Any], make_target: Callable[[], Any]
    ) -> Callable[[], object]:
        """Return a function that sends concurrent requests and waits for all answers."""

        def send_all() -> None:
            answers = [
                client.submit(make_source(), make_target(), strengths=inputs.strengths[0]) for _ in range(concurrency)
            ]
            for answer in answers:
                answer.result()

        return send_all

    pictures: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        NEW_PICTURES: (lambda: _new(source), lambda: _new(target)),
        KNOWN_TARGET: (lambda: _new(source), lambda: target),
        KNOWN_PICTURES: (lambda: source, lambda: target),
    }
    timings = {
        case: time_in_turns(
            {name: requests(concurrency, *pair) for name, pair in pictures.items()},
            repeats=repeats,
            warm_up=5,
            turn_ms=200,
        )
        for case, concurrency in CONCURRENCIES.items()
    }
    tensors = inputs.tensors()
    morph.warm_up(*tensors)
    encoding = time_in_turns(
        {"encoding": lambda: morph.encode(*tensors[:2]), "all": lambda: morph(*tensors)}, repeats=repeats, warm_up=1
    )
    share = encoding["encoding"].median_ms / encoding["all"].median_ms
    case_meta = {**meta, "cache_mib": CACHE_MIB, "encoding_share_in_process": share}
    return [
        record
        for case, timed in timings.items()
        for record in compared(timed, case, baseline=NEW_PICTURES, meta=lambda _: case_meta)
    ]


def _slider(client: MorphClient, inputs: Inputs, repeats: int, meta: dict[str, Any]) -> list[Record]:
    """Measure requests for one frame with one strength changed, as when somebody moves a slider of two pictures."""
    source, target = inputs.source[0], inputs.target[0]
    moves = itertools.cycle(np.linspace(0, 1, 31, dtype=np.float32)[1:])

    def frame(make: Callable[[Any], Any]) -> Callable[[], object]:
        def send() -> None:
            strengths = np.full((1, inputs.strengths.shape[2]), 0.5, np.float32)
            strengths[0, 0] = next(moves)
            client.morph(make(source), make(target), strengths=strengths)

        return send

    timings = time_in_turns(
        {NEW_PICTURES: frame(_new), KNOWN_PICTURES: frame(lambda picture: picture)}, repeats=repeats, warm_up=5
    )
    case_meta = {**meta, "cache_mib": CACHE_MIB, "frames": 1}
    return compared(timings, SLIDER, baseline=NEW_PICTURES, meta=lambda _: case_meta)
