"""The gRPC side that the blocking and the asyncio client share: addresses, channel options, errors."""

from __future__ import annotations

from tritonclient.utils import InferenceServerException

from homomorph_client.errors import DeadlineError, HomomorphError, RequestError, ServerUnavailableError

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 60.0

CHANNEL_OPTIONS = [
    # gRPC stops at 4 MiB unless told otherwise; 17 frames of 512x512 are 13.4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default a client that saw no server waits for up to two minutes before it tries to connect again.
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def check_url(url: str) -> None:
    """Check that an address is host:port.

    Raises:
        ServerUnavailableError: it is not, so nothing can answer there.
    """
    host, _, port = url.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ServerUnavailableError(f"{url!r} is no address: give host:port of Triton's gRPC, such as {DEFAULT_URL}")


def check_timeout(timeout_s: float) -> None:
    """Check that a timeout is positive.

    Raises:
        DeadlineError: it is not, so nothing can answer in time.
    """
    if not timeout_s > 0:
        raise DeadlineError(f"the timeout must be more than 0 s, not {timeout_s:g} s")


def typed_error(error: InferenceServerException, *, url: str, timeout_s: float) -> HomomorphError:
    """Return the error of ours that says what an error of gRPC or Triton means to the caller."""
    reason = " ".join(str(error.message()).split())
    status = str(error.status()).removeprefix("StatusCode.")
    if status == "UNAVAILABLE":
        return ServerUnavailableError(
            f"no server answers gRPC at {url}: start one with `homomorph serve`, or give its host:port ({reason})"
        )
    if status == "DEADLINE_EXCEEDED":
        return DeadlineError(f"{url} did not answer within {timeout_s:g} s: allow more time, or ask for fewer frames")
    return RequestError(f"the server at {url} refused: {reason}")
