"""What the clients say about addresses, proxies, timeouts and event loops; a small gRPC server stands for Triton."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server

from homomorph_client import (
    AsyncMorphClient,
    DeadlineError,
    MorphClient,
    RequestError,
    ServerUnavailableError,
    SettingsError,
)
from homomorph_client.connection import LONGEST_TIMEOUT_S

PICTURE = np.zeros((16, 16, 3), np.uint8)
DEAD_PROXY = "http://127.0.0.1:9"


class _Service(GRPCInferenceServiceServicer):  # type: ignore[misc]
    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")


@pytest.fixture
def url() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_GRPCInferenceServiceServicer_to_server(_Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_of_the_environment_is_named(url: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, DEAD_PROXY)
    with MorphClient(url, timeout_s=10, retries=0) as client, pytest.raises(ServerUnavailableError) as caught:
        client.served_model()
    assert f"{variable}={DEAD_PROXY}: list 127.0.0.1 in no_proxy" in str(caught.value)
    with MorphClient(url, timeout_s=10, proxy="") as client:
        assert client.ready()
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    with MorphClient(url, timeout_s=10) as client:
        assert client.ready()


def test_a_proxy_of_ones_own_is_used(url: str) -> None:
    with MorphClient(url, timeout_s=5, retries=0, proxy=DEAD_PROXY) as client:
        assert not client.ready()
    with pytest.raises(SettingsError, match="a proxy is http://host:port, not 'ftp:nowhere'"):
        MorphClient(url, proxy="ftp:nowhere")


@pytest.mark.parametrize("url", ["::1:9101", "fe80::1:8001", "2001:db8::7:8001"])
def test_ipv6_needs_brackets(url: str) -> None:
    host = url.rpartition(":")[0]
    with pytest.raises(ServerUnavailableError, match=rf"could be several addresses: write \[{host}\]:"):
        MorphClient(url)
    MorphClient("[::1]:9101").close()


@pytest.mark.parametrize("timeout_s", [None, 10**12, float("inf"), 5, np.float32(5)])
def test_long_timeouts_and_none_are_taken(url: str, timeout_s: float | None) -> None:
    with MorphClient(url, timeout_s=timeout_s) as client:
        assert client.ready(timeout_s=timeout_s)
        assert 0 < client.timeout_s <= LONGEST_TIMEOUT_S
        with pytest.raises(RequestError):
            client.morph(PICTURE, PICTURE, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("timeout_s", "error"),
    [("5", SettingsError), (True, SettingsError), (float("nan"), DeadlineError), (0, DeadlineError)],
)
def test_other_timeouts_are_refused(url: str, timeout_s: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="the timeout must be"):
        MorphClient(url, timeout_s=timeout_s)
    with MorphClient(url) as client, pytest.raises(error, match="the timeout must be"):
        client.ready(timeout_s=timeout_s)


def test_a_model_that_is_not_served_is_named_with_its_option(url: str) -> None:
    with MorphClient(url) as client, pytest.raises(RequestError, match="serve --model morph --model slerp"):
        client.morph(PICTURE, PICTURE, method="slerp")


def test_an_http_port_is_named_as_such() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        with MorphClient(address, timeout_s=10, retries=0) as client, pytest.raises(ServerUnavailableError) as caught:
            client.served_model()
        server.shutdown()
    assert "this is Triton's HTTP port: give the port of its gRPC" in str(caught.value)


def test_a_client_belongs_to_the_event_loop_of_its_first_call(url: str) -> None:
    client = AsyncMorphClient(url, timeout_s=5)  # outside of any loop, as a global
    assert asyncio.run(client.ready())
    for call in (client.ready, client.served_model):
        with pytest.raises(RequestError, match="belongs to another event loop"):
            asyncio.run(call())  # type: ignore[arg-type]
    asyncio.run(client.close())
    with pytest.raises(RequestError, match="this client is closed"):
        asyncio.run(client.served_model())


def test_a_client_in_two_threads_with_a_loop_each(url: str) -> None:
    client = AsyncMorphClient(url, timeout_s=5)
    barrier, outcomes = threading.Barrier(2), []

    async def use() -> None:
        await asyncio.to_thread(barrier.wait)
        try:
            outcomes.append(await client.ready())
        except RequestError as error:
            outcomes.append(str(error))
        await asyncio.to_thread(barrier.wait)

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert True in outcomes
    assert any("belongs to another event loop" in str(outcome) for outcome in outcomes)
