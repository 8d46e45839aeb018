"""How the clients reach servers: addresses, retries, headers, encryption, connections that fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient

from homomorph_client import (
    AccessError,
    AsyncMorphClient,
    DeadlineError,
    MorphClient,
    OverloadedError,
    RequestError,
    ServerUnavailableError,
    StrengthError,
    Tls,
)
from homomorph_export.serving.server import ServerTls, TritonServer

pytestmark = pytest.mark.server

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class TcpProxy:
    """Stands before the real server and passes on bytes; counts them and the connections, and can cut these."""

    def __init__(self, url: str) -> None:
        host, port = url.split(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.sent_bytes = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, as a network does that fails; new ones are taken."""
        for end in self._sockets:
            close_both_ways(end)
        self._sockets.clear()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *error: object) -> None:
        close_both_ways(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self._target)
            self.connections += 1
            self._sockets += [client, server]
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):  # cut
            while data := source.recv(1 << 16):
                self.sent_bytes += len(data) if from_client else 0
                target.sendall(data)


def close_both_ways(end: socket.socket) -> None:
    """Close a socket, also for a thread that waits on it."""
    with contextlib.suppress(OSError):  # the other end was faster
        end.shutdown(socket.SHUT_RDWR)
    end.close()


class GrpcProxy(grpc.GenericRpcHandler):
    """Stands before the real server and passes on calls; keeps them, and can refuse some as a proxy does."""

    def __init__(self, url: str, refuse: Callable[[int, dict[str, str]], grpc.StatusCode | None]) -> None:
        """`refuse` gets how many ModelInfer calls came before, and the headers; None lets the call through."""
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self._refuse = refuse
        self._channel = grpc.insecure_channel(url)
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def service(self, call: Any) -> grpc.RpcMethodHandler:
        headers = {key: value for key, value in call.invocation_metadata if isinstance(value, str)}

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            if call.method.endswith("ModelInfer"):
                refusal = self._refuse(len(self.calls), headers)
                self.calls.append((headers, request))
                if refusal is not None:
                    context.abort(refusal, "not now")
            answer: bytes = self._channel.unary_unary(call.method)(request, timeout=context.time_remaining())
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)

    def __enter__(self) -> GrpcProxy:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(None)
        self._channel.close()


def wait_until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def asked(url: str) -> int:
    """Return how many morphs a server has answered."""
    with InferenceServerClient(url) as triton:
        return int(triton.get_inference_statistics("morpher").model_stats[0].inference_count)


def test_one_connection_and_no_leak(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with TcpProxy(blender.grpc_url) as proxy, MorphClient(proxy.url) as client:

        def calls(count: int) -> None:
            for _ in range(count):
                client.morph(*pictures, strengths={"skin": 1})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(calls, [5] * 4))
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        tracemalloc.start()
        calls(20)
        before, _ = tracemalloc.get_traced_memory()
        calls(100)
        list(client.stream(*pictures, steps=2))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert proxy.connections == 1
        assert after - before < 100_000, "a picture alone is 12 kB"
        assert len(os.listdir("/proc/self/fd")) <= files + 1
        assert threading.active_count() <= threads + 1


def test_submitted_requests(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    with MorphClient(blender.grpc_url) as client:
        client.groups  # noqa: B018 - so that only the requests are sent below
        futures = [client.submit(*pictures, steps=steps) for steps in (60, 3, 5)]
        assert not futures[0].done(), "it takes more than a second, and nothing has waited for it"
        for future, steps in zip(futures, (60, 3, 5), strict=True):
            assert np.abs(future.result(timeout=20).astype(int) - blended(steps)).max() <= 1
        with pytest.raises(DeadlineError, match=r"0\.1 s"):
            client.submit(*pictures, steps=100, timeout_s=0.1).result(timeout=20)
        with pytest.raises(StrengthError):
            client.submit(*pictures, steps=1)
        pending = client.submit(*pictures, steps=3)
    with pytest.raises(RequestError, match="its client was closed"):
        pending.result(timeout=20)


def test_cancelled_futures(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(blender.grpc_url) as client:
        first = client.submit(*pictures, steps=20)
        others = [client.submit(*pictures, steps=3) for _ in range(5)]
        assert [future.cancel() for future in others] == [True] * 5
        assert all(future.cancelled() for future in others)
        assert len(first.result(timeout=20)) == 20
        assert not first.cancel()
        assert len(client.morph(*pictures, steps=2)) == 2


def test_timeouts_by_call(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(blender.grpc_url) as client:
        with pytest.raises(DeadlineError, match=r"did not answer within 0\.3 s"):
            client.morph(*pictures, steps=100, timeout_s=0.3)
        with pytest.raises(DeadlineError, match="more than 0 s"):
            client.morph(*pictures, timeout_s=0)
        assert len(client.morph(*pictures, steps=2, timeout_s=20)) == 2


def test_the_server_does_not_compute_for_a_client_that_left(
    blender: TritonServer, pictures: npt.NDArray[np.uint8]
) -> None:
    with MorphClient(blender.grpc_url, retries=0) as client:
        # At 20 ms a frame, all of them take 32 s.
        given_up = [client.submit(*pictures, steps=40, timeout_s=1) for _ in range(40)]
        errors = [future.exception(timeout=60) for future in given_up]
        assert {type(error) for error in errors if error} <= {DeadlineError, OverloadedError}
        assert sum(error is None for error in errors) < 10
        # It comes after all of them, and would be refused if they were ahead.
        assert len(client.morph(*pictures, steps=40, timeout_s=8)) == 40


def test_calls_go_round_among_servers_and_past_those_that_are_gone(
    blender: TritonServer, blender_repository: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    nobody = "127.0.0.1:9"
    with TritonServer(blender_repository) as second:
        urls = [nobody, blender.grpc_url, second.grpc_url]
        with MorphClient(urls) as client:
            assert client.url == ", ".join(urls)
            before = [asked(url) for url in urls[1:]]
            wait_until(
                lambda: all(asked(url) > was for url, was in zip(urls[1:], before, strict=True)) or calls(client)
            )
            calls_of = [asked(url) for url in urls[1:]]
            for _ in range(10):
                client.morph(*pictures, steps=2)
            assert [asked(url) - was for url, was in zip(urls[1:], calls_of, strict=True)] == [5, 5]
            second.stop()
            for _ in range(5):
                assert len(client.morph(*pictures, steps=2)) == 2
    with (
        MorphClient([nobody, "127.0.0.1:10"], timeout_s=10) as client,
        pytest.raises(ServerUnavailableError, match=r"at 127\.0\.0\.1:9, 127\.0\.0\.1:10"),
    ):
        client.morph(*pictures)


def calls(client: MorphClient) -> None:
    """Keep a client busy, so that it has reason to connect to all servers."""
    picture = np.zeros((16, 16, 3), np.uint8)
    client.morph(picture, picture, steps=2)


def test_what_failed_for_want_of_a_server_is_sent_again_as_it_was(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    large = np.zeros((512, 512, 3), np.uint8)  # beyond what gRPC keeps for retries unless told otherwise
    with (
        GrpcProxy(blender.grpc_url, lambda index, headers: UNAVAILABLE if index < 2 else None) as proxy,
        MorphClient(proxy.url, picture_size=512) as client,
    ):
        start = time.monotonic()
        assert client.morph(large, large, steps=2).shape == (2, 512, 512, 3)
        assert time.monotonic() - start > 0.2, "0.1 s and 0.2 s, give or take"
    assert len(proxy.calls) == 3
    assert len({request for _, request in proxy.calls}) == 1


@pytest.mark.parametrize(
    ("status", "retries", "error", "calls"),
    [
        ("UNAVAILABLE", 0, ServerUnavailableError, 1),
        ("UNAVAILABLE", 2, ServerUnavailableError, 3),
        ("INTERNAL", 3, RequestError, 1),
        ("UNAUTHENTICATED", 3, AccessError, 1),
        ("PERMISSION_DENIED", 3, AccessError, 1),
    ],
)
def test_only_a_missing_server_is_asked_again(
    blender: TritonServer,
    pictures: npt.NDArray[np.uint8],
    status: str,
    retries: int,
    error: type[Exception],
    calls: int,
) -> None:
    def refuse(index: int, headers: dict[str, str]) -> grpc.StatusCode:
        return grpc.StatusCode[status]

    async def morph() -> None:
        async with AsyncMorphClient(proxy.url, retries=retries) as other:
            await other.morph(*pictures)

    with GrpcProxy(blender.grpc_url, refuse) as proxy, MorphClient(proxy.url, retries=retries) as client:
        with pytest.raises(error, match="not now"):
            client.morph(*pictures)
        assert len(proxy.calls) == calls
        with pytest.raises(error, match="not now"):
            asyncio.run(morph())
        assert len(proxy.calls) == 2 * calls


def test_headers(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    def refuse(index: int, headers: dict[str, str]) -> grpc.StatusCode | None:
        return None if headers.get("authorization") == "Bearer good" else grpc.StatusCode.UNAUTHENTICATED

    tokens = iter(["good", "good", "late"])  # for the configuration and two requests
    with GrpcProxy(blender.grpc_url, refuse) as proxy:
        with MorphClient(proxy.url, headers={"Authorization": "Bearer good"}) as client:
            assert len(client.morph(*pictures, steps=2)) == 2
        with MorphClient(proxy.url, headers=lambda: {"authorization": f"Bearer {next(tokens)}"}) as client:
            assert len(client.morph(*pictures, steps=2)) == 2
            with pytest.raises(AccessError, match="wants other credentials"):
                client.morph(*pictures, steps=2)


def test_the_callers_trace_is_passed_on(blender: TritonServer, pictures: npt.NDArray[np.uint8]) -> None:
    trace = pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed")
    context = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, trace.TraceFlags(1))
    with GrpcProxy(blender.grpc_url, lambda index, headers: None) as proxy, MorphClient(proxy.url) as client:
        with trace.use_span(trace.NonRecordingSpan(context)):
            client.morph(*pictures, steps=2)
        client.morph(*pictures, steps=2)
    within, without = (headers for headers, _ in proxy.calls)
    assert within["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert "traceparent" not in without


def test_gzip_sends_less(blender: TritonServer) -> None:
    white = np.full((256, 256, 3), 255, np.uint8)
    sent = {}
    for gzip in (False, True):
        with TcpProxy(blender.grpc_url) as proxy, MorphClient(proxy.url, picture_size=256, gzip=gzip) as client:
            assert (client.morph(white, white, steps=2) == 255).all()
        sent[gzip] = proxy.sent_bytes
    assert sent[False] > white.nbytes * 2
    assert sent[True] < 10_000


def test_a_connection_that_is_cut_is_made_again(
    blender: TritonServer, pictures: npt.NDArray[np.uint8], blended: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    with TcpProxy(blender.grpc_url) as proxy, MorphClient(proxy.url) as client:
        future = client.submit(*pictures, steps=20)
        time.sleep(0.2)
        proxy.cut()
        assert np.abs(future.result(timeout=20).astype(int) - blended(20)).max() <= 1, "a morph can be asked twice"
        frames = client.stream(*pictures, steps=50)
        next(frames)
        proxy.cut()
        with pytest.raises(ServerUnavailableError):  # frames that were yielded cannot be taken back
            list(frames)
        assert len(client.morph(*pictures, steps=2)) == 2


def test_tls(blender_repository: Path, certificates: Any, pictures: npt.NDArray[np.uint8]) -> None:
    good = Tls(certificates.ca, server_name="morph.test")
    with TritonServer(blender_repository, tls=ServerTls(*certificates.server)) as server:
        with MorphClient(server.grpc_url, tls=good) as client:
            assert len(client.morph(*pictures, steps=2)) == 2
        with MorphClient([server.grpc_url, "127.0.0.1:9"], tls=good) as client:
            assert len(client.morph(*pictures, steps=2)) == 2
        for bad in (None, Tls(), Tls(certificates.ca), Tls(certificates.ca, server_name="other.test")):
            with MorphClient(server.grpc_url, tls=bad, retries=0) as client, pytest.raises(ServerUnavailableError):
                client.morph(*pictures, steps=2)


def test_mutual_tls(blender_repository: Path, certificates: Any, pictures: npt.NDArray[np.uint8]) -> None:
    mutual = ServerTls(*certificates.server, client_ca=certificates.ca)
    known = Tls(certificates.ca, *certificates.client, server_name="morph.test")

    async def morph(url: str) -> npt.NDArray[np.uint8]:
        async with AsyncMorphClient(url, tls=known) as client:
            return await client.morph(*pictures, steps=2)

    with TritonServer(blender_repository, tls=mutual) as server:
        with MorphClient(server.grpc_url, tls=known) as client:
            assert len(client.morph(*pictures, steps=2)) == 2
        assert len(asyncio.run(morph(server.grpc_url))) == 2
        unknown = Tls(certificates.ca, server_name="morph.test")
        with MorphClient(server.grpc_url, tls=unknown, retries=0) as client, pytest.raises(ServerUnavailableError):
            client.morph(*pictures, steps=2)
