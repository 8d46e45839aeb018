"""Serve the page on this machine."""

from __future__ import annotations

import os
import socket

import uvicorn
from starlette.applications import Starlette

from homomorph_client.errors import ServerError

LOOPBACK = "127.0.0.1"
_STOP_S = 2
"""Longest wait for requests on their way at a stop."""


def listen(port: int) -> socket.socket:
    """Take a port of this machine that other machines cannot reach; 0 is any free one.

    Raises:
        ServerError: it is in use.
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise ServerError(
            f"port {port} cannot be used ({os.strerror(error.errno or 0)}): choose another one with --port"
        ) from error


def page_server(app: Starlette) -> uvicorn.Server:
    """Return the web server; `run(sockets=[listener])` serves until a signal or until `should_exit` is set."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_STOP_S)
    return uvicorn.Server(config)
