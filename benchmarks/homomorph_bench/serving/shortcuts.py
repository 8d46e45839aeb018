"""What two shortcuts save: shared memory where frames are large, and a target whose features the server knows."""

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

LARGE = 512
"""Height and width of large pictures, in pixels."""
METHODS: dict[Method, str] = {HOMOMORPH: "morph", PIXEL: "blend of pixels"}
"""What is asked for with large pictures, and what the records call it. Blending computes next to nothing, so that what
is left is the way there and back."""
CACHE_MIB = 64
TOGETHER = {"one at a time": 1, "32 at once": 32}
"""Requests until whose last answer is waited. One alone leaves cores idle, where less work is not always less time."""
NEW, TARGET_KNOWN, BOTH_KNOWN = "new pictures", "known target", "known pictures"


def measure_shortcuts(
    repository: Path,
    inputs: Inputs,
    *,
    gpus: Sequence[int],
    repeats: int,
    meta: dict[str, Any],
    report: Report,
) -> list[Record]:
    """Return the records of both, from a server of their own.

    Args:
        repository: folder that `homomorph export` wrote.
        inputs: what is asked for in the other figures.
        gpus: where models are placed; none for the CPU.
        repeats: turns that count, at least 10.
        meta: what every record says of the run.
        report: called with what is done next.

    Raises:
        ServerError: the server does not start.
        HomomorphError: it refuses a request.
    """
    with ExitStack() as stack:
        report(Progress("starting Triton with a cache"))
        models = [model for model in (MORPH, PIXEL) if (repository / model).is_dir()]
        server = stack.enter_context(TritonServer(repository, models=models, cache_mib=CACHE_MIB, gpus=gpus))
        report(Progress(f"{LARGE} pixels, with and without shared memory"))
        clients = {
            name: stack.enter_context(
                MorphClient(server.grpc_url, picture_size=LARGE, timeout_s=300, shared_memory=name == SHARED)
            )
            for name in (CLIENT, SHARED)
        }
        records = _large_frames(clients, inputs, repeats, meta)
        report(Progress("pictures that the server knows"))
        client = stack.enter_context(MorphClient(server.grpc_url, picture_size=inputs.source.shape[1]))
        return records + _known_pictures(client, ExportedMorph(repository, device_of(gpus)), inputs, repeats, meta)


def _large_frames(clients: dict[str, MorphClient], inputs: Inputs, repeats: int, meta: dict[str, Any]) -> list[Record]:
    large = Inputs.random(LARGE, *inputs.strengths.shape[1:])
    source, target = large.source[0], large.target[0]
    about = {**meta, "picture_size": LARGE, "pictures": "known: only the way that they are sent differs"}
    records = []
    for method, case in METHODS.items():
        strengths = {"all": large.strengths[0, :, 0]} if method == PIXEL else large.strengths[0]

        def ask(client: MorphClient, method: Method = method, strengths: Any = strengths) -> Callable[[], object]:
            return lambda: client.morph(source, target, strengths=strengths, method=method)

        timings = time_in_turns({name: ask(client) for name, client in clients.items()}, repeats=repeats, warm_up=2)
        records += compared(timings, f"{case} of {LARGE} pixels", baseline=CLIENT, meta=lambda _: about)
    return records


def _known_pictures(
    client: MorphClient, morph: ExportedMorph, inputs: Inputs, repeats: int, meta: dict[str, Any]
) -> list[Record]:
    numbers = itertools.count()
    source, target = inputs.source[0], inputs.target[0]

    def new(picture: Any) -> Any:
        """Return a picture that was never sent: a number written into its corner."""
        changed = picture.copy()
        changed[0, :3] = np.frombuffer(np.uint64(next(numbers) + 1).tobytes() + b"\0", np.uint8).reshape(3, 3)
        return changed

    def ask(requests: int, a: Callable[[], Any], b: Callable[[], Any]) -> Callable[[], object]:
        def answers() -> None:
            for answer in [client.submit(a(), b(), strengths=inputs.strengths[0]) for _ in range(requests)]:
                answer.result()

        return answers

    pictures: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        NEW: (lambda: new(source), lambda: new(target)),
        TARGET_KNOWN: (lambda: new(source), lambda: target),
        BOTH_KNOWN: (lambda: source, lambda: target),
    }
    timings = {
        case: time_in_turns(
            {name: ask(requests, *pair) for name, pair in pictures.items()}, repeats=repeats, warm_up=5, turn_ms=200
        )
        for case, requests in TOGETHER.items()
    }
    tensors = inputs.tensors()
    morph.warm_up(*tensors)
    encoding = time_in_turns(
        {"encoding": lambda: morph.encode(*tensors[:2]), "all": lambda: morph(*tensors)}, repeats=repeats, warm_up=1
    )
    share = encoding["encoding"].median_ms / encoding["all"].median_ms
    about = {**meta, "cache_mib": CACHE_MIB, "encoding_share_in_process": share}
    return [
        record
        for case, timed in timings.items()
        for record in compared(timed, case, baseline=NEW, meta=lambda _: about)
    ]
