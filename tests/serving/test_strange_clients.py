"""Clients that are slow, that vanish, and that send malformed requests: the server answers all others meanwhile."""

from __future__ import annotations

import math
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client import MorphClient, PictureError, RequestError
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server

_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = struct.pack(">I", 0)[1:] + bytes([4, 0]) + struct.pack(">I", 0)
_HALF_A_HEADER = b"\x00\x40\x00\x01\x04\x00\x00"


def test_connections_on_which_nothing_more_comes(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    beginnings = [b"", b"P", _HTTP2_PREFACE[:10], _HTTP2_PREFACE, _HTTP2_PREFACE + _SETTINGS + _HALF_A_HEADER]
    beginnings.append(b"GET / HTTP/1.1\r\n")
    open_ones = [socket.create_connection(("127.0.0.1", blender.ports["grpc"])) for _ in range(8 * len(beginnings))]
    try:
        for index, connection in enumerate(open_ones):
            connection.sendall(beginnings[index % len(beginnings)])
        with MorphClient(blender.grpc_url, timeout_s=10) as client:
            assert len(client.morph(*pictures, steps=2)) == 2
    finally:
        for connection in open_ones:
            connection.close()
    with MorphClient(blender.grpc_url, timeout_s=10) as client:
        assert len(client.morph(*pictures, steps=2)) == 2


_ASKS_FOREVER = """
import sys, numpy as np
from homomorph_client import MorphClient
client = MorphClient(sys.argv[1])
picture = np.zeros((64, 64, 3), np.uint8)
waiting = [client.submit(picture, picture, steps=40 + index) for index in range(4)]
frames = client.stream(picture, picture, steps=200)
next(frames)
print("asking", flush=True)
while True:
    client.morph(picture, picture, steps=2)
"""


def test_clients_that_are_killed(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    clients = [
        subprocess.Popen([sys.executable, "-c", _ASKS_FOREVER, blender.grpc_url], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for process in clients:
            assert process.stdout is not None
            assert process.stdout.readline() == "asking\n"
    finally:
        for process in clients:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    with MorphClient(blender.grpc_url) as client:
        # Longer than each that they had sent, it comes after those, 7 s later, and nothing is left for the next test.
        # A queue that had lost count would refuse it, or never answer.
        assert len(client.morph(*pictures, steps=60, timeout_s=60)) == 60


def test_a_client_that_reads_slowly(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with (
        MorphClient(blender.grpc_url) as slow,
        MorphClient(blender.grpc_url) as client,
        closing(slow.stream(*pictures, steps=60)) as frames,
    ):
        read = [next(frames)]
        for _ in range(5):
            time.sleep(0.2)
            assert len(client.morph(*pictures, steps=2)) == 2
            read.append(next(frames))
        assert len([*read, *frames]) == 60, "nothing is lost of what waited for the reader"


def test_pictures_of_one_and_of_many_pixels(served: Any, client: MorphClient) -> None:
    good = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(PictureError, match="1x1 pixels: at least 8x8"):
        client.morph(good[:1, :1], good)
    with pytest.raises(PictureError, match="8192x8192: more than 64 million"):
        client.morph(np.zeros((8192, 8192, 3), np.uint8), good)
    assert client.morph(np.zeros((8000, 8000, 3), np.uint8), good, steps=2).shape == (2, 64, 64, 3)


@pytest.mark.slow
def test_a_request_of_hundreds_of_megabytes(served: Any, client: MorphClient) -> None:
    with MorphClient(served.url, picture_size=8192) as huge, pytest.raises(RequestError) as refused:
        huge.morph(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), steps=2)
    assert "too many frames for their size" in str(refused.value)
    assert client.morph(*np.zeros((2, 64, 64, 3), np.uint8), steps=2).shape == (2, 64, 64, 3)


lengths = st.integers(-1, 5) | st.sampled_from([8, 16, 64, 2**31])
shapes = st.lists(lengths, max_size=5)
usual = st.sampled_from([[1, 64, 64, 3], [1, 8, 8, 3], [1, 2, 3], [2, 8, 8, 3], [1, 0, 3]])
tensors = st.tuples(
    st.sampled_from(["SOURCE", "TARGET", "STRENGTHS", "OTHER", ""]),
    st.sampled_from(["UINT8", "FP32", "INT64", "BYTES", "BOOL", "FP16", "nothing", ""]),
    usual | shapes,
    st.none() | st.binary(max_size=30),
)


def message(model: str, inputs: list[tuple[str, str, list[int], bytes | None]], batch_id: str) -> ModelInferRequest:
    """Return a request of whatever was drawn; contents that were not are zeros of the size that the shape needs."""
    request = ModelInferRequest(model_name=model, id=batch_id)
    for name, datatype, shape, content in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        size = int(np.prod([max(length, 0) for length in shape], dtype=float)) * (4 if datatype == "FP32" else 1)
        request.raw_input_contents.append(bytes(size if size < 2**20 else 0) if content is None else content)
    return request


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    model=st.sampled_from(["morph", "morph", "morpher", "morph_stream", "edit", "encoder", "decoder", ""]),
    inputs=st.lists(tensors, max_size=4),
    complete=st.booleans(),
    request_id=st.text(max_size=5),
)
def test_any_request_gets_an_answer(
    served: Any,
    client: MorphClient,
    model: str,
    inputs: list[tuple[str, str, list[int], bytes | None]],
    complete: bool,
    request_id: str,
) -> None:
    if complete:  # what was drawn takes the place of the first tensors of a good request
        good = [("SOURCE", "UINT8", [1, 8, 8, 3], None), ("TARGET", "UINT8", [1, 8, 8, 3], None)]
        inputs = [*inputs[:2], *good, ("STRENGTHS", "FP32", [1, 2, 3], None)][-4:]
    with grpc.insecure_channel(served.url) as channel:
        call = GRPCInferenceServiceStub(channel).ModelInfer.future(message(model, inputs, request_id), timeout=20)
        assert call.code() in {
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.UNIMPLEMENTED,  # a stream's model by a call that is not one
        }, call.details()
    assert client.ready()
    assert client.morph(*np.zeros((2, 64, 64, 3), np.uint8), strengths={"hair": 0.5}).shape == (1, 64, 64, 3)


any_length = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 300) | st.sampled_from([2**31, 2**61, 2**62, -(2**62)])


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("tensor", range(3), ids=["SOURCE", "TARGET", "STRENGTHS"])
def test_any_shape_of_a_tensor_gets_an_answer(served: Any, client: MorphClient, tensor: int) -> None:
    """200 shapes of each tensor of a morph, the others good; contents as long as Triton's own arithmetic wants them."""
    good = [("SOURCE", "UINT8", [1, 8, 8, 3]), ("TARGET", "UINT8", [1, 8, 8, 3]), ("STRENGTHS", "FP32", [1, 2, 3])]
    last = good[tensor][2][-1]
    codes: dict[grpc.StatusCode, int] = {}
    usual = st.lists(any_length, min_size=1, max_size=3).map(lambda lengths: [1, *lengths, last])

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(shape=usual | st.lists(any_length, max_size=5))
    def ask(shape: list[int]) -> None:
        request = ModelInferRequest(model_name="morph")
        for index, (name, datatype, of_good) in enumerate(good):
            lengths = shape if index == tensor else of_good
            request.inputs.add(name=name, datatype=datatype, shape=lengths)
            size = math.prod(lengths) * (4 if datatype == "FP32" else 1) % 2**64
            request.raw_input_contents.append(bytes(size if size < 2**20 else 0))
        call = GRPCInferenceServiceStub(channel).ModelInfer.future(request, timeout=20)
        assert call.code() in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, call.details()
        codes[call.code()] = codes.get(call.code(), 0) + 1
        assert client.ready()

    with grpc.insecure_channel(served.url) as channel:
        ask()
    assert client.morph(*np.zeros((2, 64, 64, 3), np.uint8), strengths={"hair": 0.5}).shape == (1, 64, 64, 3)
    print(good[tensor][0], {code.name: count for code, count in codes.items()}, file=sys.stderr)
