"""Check the requested ports of a server, and pick free ones for the rest."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Collection, Mapping

from homomorph_client.errors import ServerError

LOOPBACK = "127.0.0.1"


def choose_ports(host: str, requested: Mapping[str, int | None]) -> dict[str, int]:
    """Check the requested ports and pick free ones for the other services.

    Args:
        host: address to listen on.
        requested: port of each service (`grpc`, `http`, `metrics`); None: pick a free one.

    Raises:
        ServerError: a port is in use or was given twice, or the address is not one of this machine.
    """
    chosen: dict[str, int] = {}
    for service, port in requested.items():
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
    for service in requested:
        if service not in chosen:
            chosen[service] = _free_port(host, taken=chosen.values())
    return {service: chosen[service] for service in requested}


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _bind(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
        probe.bind((host, port))


def _free_port(host: str, *, taken: Collection[int]) -> int:
    """Pick a port below the system's ephemeral range: no other program is given it while the models load."""
    candidates = [port for port in random.SystemRandom().sample(range(20_000, 32_000), 100) if port not in taken]
    for port in candidates:
        with contextlib.suppress(OSError):
            _bind(host, port)
            return port
    raise ServerError(f"no free port was found on {host}: is it an address of this machine?")
