"""The attempts of one stream: a stream that fails before its first frame is sent again.

gRPC retries unary calls (`connection.py`). It must not retry streams: with grpcio 1.85, a stream whose server died
while gRPC could still retry it waited for ever, beyond its deadline.
"""

from __future__ import annotations

import random
import time
from typing import Any

import grpc

_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    # The model existed when its configuration was read: a server without it is about to stop.
    grpc.StatusCode.NOT_FOUND,
)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_SPREAD = 0.2
"""Share by which pauses differ at random, so that clients of a server that comes back do not all ask at once."""


class StreamAttempts:
    """The arguments of each attempt for gRPC, and the pause before it."""

    def __init__(self, options: dict[str, Any], retries: int) -> None:
        """Start the clock.

        Args:
            options: arguments of the call; `timeout` is in seconds, of all attempts together.
            retries: largest number of further attempts.
        """
        self.timeout_s: float = options["timeout"]
        self._options = options
        self._deadline_s = time.monotonic() + self.timeout_s
        self._pauses_s = iter([min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**index) for index in range(retries)])

    def options(self) -> dict[str, Any]:
        """Return the arguments of the next attempt."""
        return self._options | {"timeout": max(0.0, self._deadline_s - time.monotonic())}

    def pause_s(self, error: grpc.RpcError, *, answered: bool) -> float | None:
        """Return the pause before the next attempt, in seconds; None if there is none.

        Args:
            error: that ended the last attempt.
            answered: whether that attempt brought a frame.
        """
        if answered or error.code() not in _RETRIED:
            return None
        pause_s = next(self._pauses_s, None)
        return None if pause_s is None else pause_s * random.uniform(1 - _SPREAD, 1 + _SPREAD)
