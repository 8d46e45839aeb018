"""Many requests, good and bad, from many threads: every good one is answered rightly, and memory does not grow."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_bench.serving import process_usage
from homomorph_client import DeadlineError, MorphClient, StrengthError
from homomorph_client.codec import morph_request

pytestmark = pytest.mark.server

THREADS = 16
_OWN = ("Pss_Anon", "Pss_Shmem", "SwapPss")
"""What a process itself has written; pages of files come and go as the system likes."""
PAIRS = 6
STRENGTHS = np.array([[0.2, 0, 0], [0, 1, 0.5]], np.float32)


def changed(good: ModelInferRequest, **tensors: npt.NDArray[Any]) -> ModelInferRequest:
    """Return a request of which some tensors are others."""
    request = ModelInferRequest()
    request.CopyFrom(good)
    for index, tensor in enumerate(request.inputs):
        if (array := tensors.get(tensor.name)) is not None:
            tensor.datatype = {"u": "UINT8", "f": "FP32", "i": "INT64"}[array.dtype.kind]
            tensor.shape[:] = array.shape
            request.raw_input_contents[index] = array.tobytes()
    return request


def bad_requests(good: ModelInferRequest) -> list[tuple[ModelInferRequest, str]]:
    """Return requests that the server must refuse, and words of its answer."""
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    short, unnamed, foreign, urgent, late, negative, wrapping, wrapping_steps = (ModelInferRequest() for _ in range(8))
    for request in (short, unnamed, foreign, urgent, late, negative, wrapping, wrapping_steps):
        request.CopyFrom(good)
    urgent.parameters["urgent"].string_param = "false"
    late.parameters["timeout"].int64_param = -1
    negative.inputs[0].shape[:] = [1, -64, -64, 3]
    wrapping.inputs[0].shape[:] = [1, 2**62, 4, 3]
    wrapping_steps.inputs[2].shape[:] = [1, 2 + 2**62, 3]
    short.raw_input_contents[0] = short.raw_input_contents[0][:100]
    unnamed.inputs[1].name = "TARGETS"
    foreign.model_name = "nothing"
    return [
        (changed(good, STRENGTHS=np.full((1, 2, 3), np.nan, np.float32)), "not nan"),
        (changed(good, STRENGTHS=np.full((1, 2, 3), np.inf, np.float32)), "not inf"),
        (changed(good, STRENGTHS=np.full((1, 2, 3), -1, np.float32)), "not -1"),
        (changed(good, STRENGTHS=np.zeros((1, 0, 3), np.float32)), "from 1 to 256, not 0"),
        (changed(good, STRENGTHS=np.zeros((1, 257, 3), np.float32)), "from 1 to 256, not 257"),
        (changed(good, STRENGTHS=np.zeros((1, 2, 4), np.float32)), "unexpected shape"),
        (changed(good, STRENGTHS=np.zeros((1, 2, 3), np.int64)), "data-type is 'INT64'"),
        (changed(good, STRENGTHS=np.zeros((1, 6), np.float32)), "unexpected shape"),
        (changed(good, SOURCE=picture[:, :60]), "H must be a multiple of 8"),
        (changed(good, SOURCE=picture[:, :1, :1]), "not 1"),
        (changed(good, SOURCE=picture[:, :32], TARGET=picture), "H must be 32 as in SOURCE, not 64"),
        (changed(good, SOURCE=np.zeros((9, 64, 64, 3), np.uint8)), "batch size"),
        (short, "byte size mismatch"),
        (unnamed, "TARGET"),
        (foreign, "nothing"),
        (urgent, "must be true or false"),
        (late, "timeout must be from 0"),
        (negative, "cannot have length -64"),
        (wrapping, "cannot have length 4611686018427387904"),
        (wrapping_steps, "cannot have length 4611686018427387906"),
    ]


def load(served: Any, count: int, warm_up: int) -> float:
    """Ask so many times from 16 threads, half of them good, and return by how many MiB the server has grown."""
    generator = np.random.default_rng(7)
    pictures = generator.integers(0, 256, (2 * PAIRS, 64, 64, 3), dtype=np.uint8)
    pairs = [(pictures[2 * index], pictures[2 * index + 1]) for index in range(PAIRS)]
    expected = [served.expected(source[None], target[None], STRENGTHS[None])[0] for source, target in pairs]
    with MorphClient(served.url) as client, grpc.insecure_channel(served.url) as channel:
        good = morph_request(client.served_model(), *pairs[0], steps=None, strengths=STRENGTHS)
        bad = bad_requests(good)
        raw = GRPCInferenceServiceStub(channel)

        def ask(index: int) -> None:
            source, target = pairs[index % PAIRS]
            kind = index % 8
            if kind < 4:  # good: in one piece, as a future, urgent, in a stream
                if kind == 1:
                    frames = client.submit(source, target, strengths=STRENGTHS).result(timeout=60)
                elif kind == 3 and index % 16 == 3:
                    frames = np.stack(list(client.stream(source, target, strengths=STRENGTHS)))
                else:
                    frames = client.morph(source, target, strengths=STRENGTHS, urgent=kind == 2)
                assert np.abs(frames.astype(int) - expected[index % PAIRS]).max() <= 1
            elif kind == 4:  # gone before there is an answer
                with pytest.raises(DeadlineError):
                    client.morph(source, target, strengths=STRENGTHS, timeout_s=1e-4)
            elif kind == 5:  # refused before it is sent
                with pytest.raises(StrengthError):
                    client.morph(source, target, strengths=STRENGTHS - 1)
            else:
                request, words = bad[random.Random(index).randrange(len(bad))]
                with pytest.raises(grpc.RpcError) as refused:
                    raw.ModelInfer(request, timeout=60)
                assert words in refused.value.details(), words

        def run(numbers: range) -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                for future in [pool.submit(ask, index) for index in numbers]:
                    future.result(timeout=600)

        run(range(warm_up))
        before = process_usage.memory_mib(served.roots, _OWN)
        run(range(warm_up, count))
        grown = process_usage.memory_mib(served.roots, _OWN) - before
    print(f"{count} requests: {before:.0f} MiB after {warm_up}, {grown:+.1f} MiB at the end", file=sys.stderr)
    return grown


@pytest.mark.parametrize(
    ("count", "warm_up"),
    [(640, 320), pytest.param(10_000, 1_000, marks=[pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3600)])],
    ids=["hundreds", "ten thousand"],
)
def test_good_and_bad_requests_from_sixteen_threads(served: Any, client: MorphClient, count: int, warm_up: int) -> None:
    # A leak of one request's pictures alone, 24 KiB, would be 90 MiB in the 4,000 good ones of ten thousand.
    assert load(served, count, warm_up) < 40
    assert client.ready()


_CALLS = """
import gc, json, os, sys, threading
from pathlib import Path
import numpy as np
from homomorph_client import MorphClient, StrengthError

url, count = sys.argv[1], int(sys.argv[2])
pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)

def call(client, numbers):
    for index in numbers:
        if index % 50 == 0:
            assert client.submit(*pictures, strengths={"hair": 0.5}).result(timeout=60).shape == (1, 8, 8, 3)
        elif index % 50 == 10:
            assert len(list(client.stream(*pictures, strengths={"hair": 0.5}))) == 1
        elif index % 50 == 20:
            try:
                client.morph(*pictures, strengths={"beard": 1})
            except StrengthError:
                pass
        elif index % 10 == 0:
            assert client.morph(*pictures, strengths={"hair": 0.5}).shape == (1, 8, 8, 3)
        else:
            assert client.ready()

def kept():
    gc.collect()
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    kib = sum(int(lines[name].split()[0]) for name in ("RssAnon", "VmSwap"))
    return [kib / 1024, len(gc.get_objects()), threading.active_count(), len(os.listdir("/proc/self/fd"))]

with MorphClient(url, picture_size=8) as client:
    call(client, range(count // 5))
    before = kept()
    call(client, range(count // 5, count))
    print(json.dumps([before, kept()]))
"""
"""One call in ten is for a frame of 8x8 pixels; the others ask whether the model is there."""


@pytest.mark.parametrize(
    "count",
    [3_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
    ids=["thousands", "hundred thousand"],
)
def test_the_client_keeps_nothing_of_its_calls(served: Any, count: int) -> None:
    # In a process of its own, which holds nothing else that could grow or shrink.
    words = [sys.executable, "-c", _CALLS, served.url, str(count)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    (before_mib, *before), (after_mib, *after) = json.loads(output)
    print(f"{count} calls: {before_mib:.1f} MiB after a fifth, {after_mib:.1f} MiB at the end, {before} -> {after}")
    objects, threads, files = (now - then for then, now in zip(before, after, strict=True))
    assert (objects < 200, threads <= 1, files <= 1) == (True, True, True)
    assert after_mib - before_mib < 4
