"""Which ports a server listens on: those that were asked for, checked beforehand, or free ones."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Collection, Mapping

from homomorph_client.errors import ServerError

LOOPBACK = "127.0.0.1"


def choose_ports(host: str, asked: Mapping[str, int | None]) -> dict[str, int]:
    """Check the ports that were asked for and pick free ones for the others.

    Args:
        host: address to listen on.
        asked: port of each service (`grpc`, `http`, `metrics`); None picks one.

    Raises:
        ServerError: a port is in use or was asked for twice, or the address is not one of this machine.
    """
    chosen: dict[str, int] = {}
    for service, port in asked.items():
        if port is None:
            continue
        if port in chosen.values():
            raise ServerError(f"port {port} was given twice: each service needs its own --{service}-port")
        try:
            _bind(host, port)
        except OSError as error:
            raise ServerError(
                f"port {port} of {host} cannot be used for {service} ({error.strerror}): "
                f"stop what listens there, or give another --{service}-port"
            ) from error
        chosen[service] = port
    for service in asked:
        if service not in chosen:
            chosen[service] = _free_port(host, taken=chosen.values())
    return {service: chosen[service] for service in asked}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _bind(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are merely closing do not count
        probe.bind((host, port))


def _free_port(host: str, *, taken: Collection[int]) -> int:
    """Pick a port below the range that the system hands out to others while the models load."""
    candidates = [port for port in random.SystemRandom().sample(range(20_000, 32_000), 100) if port not in taken]
    for port in candidates:
        with contextlib.suppress(OSError):
            _bind(host, port)
            return port
    raise ServerError(f"no free port was found on {host}: is it an address of this machine?")
