"""The choice of a server's ports."""

from __future__ import annotations

import pytest

from homomorph_client.errors import ServerError
from homomorph_export.serving.ports import choose_ports


@pytest.mark.parametrize("service", ["grpc", "http", "metrics"])
def test_port_in_use(taken_port: int, service: str) -> None:
    with pytest.raises(ServerError, match=f"port {taken_port} .* {service} .* --{service}-port"):
        choose_ports("127.0.0.1", {service: taken_port})


def test_port_given_twice() -> None:
    with pytest.raises(ServerError, match="port 20001 was given twice"):
        choose_ports("127.0.0.1", {"grpc": 20001, "http": 20001})


def test_foreign_host() -> None:
    with pytest.raises(ServerError, match=r"192\.0\.2\.1: is it an address of this machine"):
        choose_ports("192.0.2.1", {"grpc": None})


def test_free_ports_differ() -> None:
    ports = choose_ports("127.0.0.1", {"grpc": None, "http": None, "metrics": None})
    assert len(set(ports.values())) == 3
