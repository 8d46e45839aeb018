"""The connection to the servers: gRPC options for both clients, and the translation of gRPC's errors into ours.

Round robin, fail-over and retries are features of gRPC, so both clients behave the same and encode a request only once.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsFloat

import grpc

from homomorph_client.errors import (
    AccessError,
    DeadlineError,
    HomomorphError,
    OverloadedError,
    RequestError,
    RestartedServerError,
    ServerUnavailableError,
    SettingsError,
    SharedMemoryError,
)

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 60.0
LONGEST_TIMEOUT_S = 1e6
"""Upper limit of timeouts (eleven days), so that the microseconds in a request do not overflow."""
DEFAULT_RETRIES = 4
_MAX_RETRIES = 4
"""gRPC tries five times at most."""

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Metadata of each call, or a function that returns it, for tokens that expire."""

_SERVICE = "inference.GRPCInferenceService"
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_PROXIES, _NO_PROXY = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")
"""Variables of the environment that gRPC reads, in this order."""
_PROXY = re.compile(r"https?://\S+|[^\s:/]+:\d+")
_UNKNOWN_MODEL = re.compile(r"unknown model: '([^']+)' is not found")
_HEADER_VALUE = re.compile(r"[ -~]*")
_RETRIED = {
    "ModelConfig": ["UNAVAILABLE"],
    "SystemSharedMemoryRegister": ["UNAVAILABLE"],
    # The model existed when its configuration was read: a server without it is about to stop.
    "ModelInfer": ["UNAVAILABLE", "NOT_FOUND"],
}
"""Errors after which gRPC retries a call, by call. Computing a morph twice does no harm.
Streams have `StreamAttempts`."""


@dataclass(frozen=True)
class Tls:
    """An encrypted connection: certificates that identify the server and, optionally, the client."""

    ca: str | Path | None = None
    """PEM file of the authorities that sign the server's certificate; None: the public authorities."""
    certificate: str | Path | None = None
    """PEM file of the client's own certificate, for mutual TLS."""
    key: str | Path | None = None
    """PEM file of its private key."""
    server_name: str | None = None
    """Name in the servers' certificate, if it is not that of the first address."""

    def __post_init__(self) -> None:
        """Check that either both or neither of certificate and key are given."""
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("mutual TLS needs both the client's certificate and its key")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            SettingsError: a file cannot be read.
        """
        ca, key, certificate = (_read_pem(path) for path in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True)
class Connection:
    """Addresses of the servers, and settings of the calls."""

    urls: tuple[str, ...]
    """host:port of each server's gRPC; requests go in turn to the servers that answer."""
    retries: int = DEFAULT_RETRIES
    """Number of retries of a call that found no server or an overloaded one. The first comes after 0.1 s; then each
    pause is twice as long as the last, plus or minus a fifth."""
    tls: Tls | None = None
    """None: not encrypted."""
    headers: Headers | None = None
    gzip: bool = False
    """Whether requests are compressed."""
    proxy: str | None = None
    """Address of an HTTP proxy; None: the proxy of the environment, as gRPC reads it; "": no proxy."""

    def __post_init__(self) -> None:
        """Check the settings, without a server.

        Raises:
            ServerUnavailableError: an address is not host:port.
            SettingsError: a setting is out of range.
        """
        if not self.urls:
            raise ServerUnavailableError(f"no address was given: give host:port, such as {DEFAULT_URL}")
        for url in self.urls:
            _split(url)
        if self.proxy and not _PROXY.fullmatch(self.proxy):
            raise SettingsError(f"a proxy is http://host:port, not {self.proxy!r}")
        if not 0 <= self.retries <= _MAX_RETRIES:
            raise SettingsError(f"retries must be from 0 to {_MAX_RETRIES}, not {self.retries}")

    @property
    def name(self) -> str:
        """The addresses, for messages."""
        return ", ".join(self.urls)

    @property
    def port(self) -> int:
        """Port of the first server."""
        return _split(self.urls[0])[1]

    @property
    def compression(self) -> grpc.Compression:
        """gRPC's compression of requests."""
        return grpc.Compression.Gzip if self.gzip else grpc.Compression.NoCompression

    def open(self, library: ModuleType) -> Any:
        """Return a channel of `grpc` or of `grpc.aio`; it connects when it is first used.

        Raises:
            ServerUnavailableError: one of several names has no address.
            SettingsError: a file of `tls` cannot be used.
        """
        if self.tls is None:
            return library.insecure_channel(self.target(), options=self.channel_options())
        return library.secure_channel(self.target(), self.tls.credentials(), options=self.channel_options())

    def target(self) -> str:
        """Return the addresses in the form of gRPC's resolver.

        gRPC resolves a single name itself, repeatedly. Several names are resolved here, once, because gRPC accepts a
        list of numeric addresses only.

        Raises:
            ServerUnavailableError: one of several names has no address.
        """
        if len(self.urls) == 1:
            return f"dns:///{self.urls[0]}"
        family = socket.AF_INET6 if all(_split(url)[0].startswith("[") for url in self.urls) else socket.AF_INET
        scheme, form = ("ipv6", "[{}]:{}") if family == socket.AF_INET6 else ("ipv4", "{}:{}")
        return f"{scheme}:" + ",".join(form.format(_address(url, family), _split(url)[1]) for url in self.urls)

    def channel_options(self) -> list[tuple[str, Any]]:
        """Return the options of gRPC's channel."""
        config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
        if self.retries:
            config["methodConfig"] = [
                {
                    "name": [{"service": _SERVICE, "method": method}],
                    "retryPolicy": {
                        "maxAttempts": 1 + self.retries,
                        "initialBackoff": "0.1s",
                        "maxBackoff": "1s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": codes,
                    },
                }
                for method, codes in _RETRIED.items()
            ]
        options: list[tuple[str, Any]] = [
            # gRPC's default limit is 4 MiB; 17 frames of 512x512 are 13.4 MB.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # gRPC buffers requests for retries; its default limit is 256 KiB.
            ("grpc.per_rpc_retry_buffer_size", 1 << 30),
            # By default, a client that found no server waits up to two minutes before it connects again.
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.service_config", json.dumps(config)),
        ]
        if self.proxy is not None:
            options.append(("grpc.http_proxy", self.proxy) if self.proxy else ("grpc.enable_http_proxy", 0))
        if self.tls and (self.tls.server_name or len(self.urls) > 1):
            name = self.tls.server_name or _split(self.urls[0])[0]
            options.append(("grpc.ssl_target_name_override", name))
        return options

    def metadata(self) -> list[tuple[str, str]]:
        """Return the headers of one call: the caller's own, and those of its trace.

        Raises:
            SettingsError: gRPC cannot send one of the caller's headers.
        """
        headers = self.headers() if callable(self.headers) else self.headers or {}
        for name, value in headers.items():
            if not (_HEADER_NAME.fullmatch(name.lower()) and _HEADER_VALUE.fullmatch(value)):
                # The message leaves the value out, because it may be a secret.
                raise SettingsError(
                    f"the header {name!r} cannot be sent: names are letters, digits, '_', '-' and '.', values "
                    "printable ASCII without line ends"
                )
        # gRPC accepts lower-case names only.
        return [(name.lower(), value) for name, value in {**_trace_headers(), **headers}.items()]

    def typed_error(self, error: grpc.RpcError, *, timeout_s: float) -> HomomorphError:
        """Convert an error of gRPC or Triton into one of our own classes, with advice for the caller."""
        reason = re.sub(r"^in ensemble '[^']+', ", "", " ".join((error.details() or "").split()))
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(
                f"{self.name} did not answer within {timeout_s:g} s: allow more time, or ask for fewer frames"
            )
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or "is restricted" in reason:
            return AccessError(f"the server at {self.name} wants other credentials: check the headers ({reason})")
        if "open shared memory region" in reason:
            return SharedMemoryError(
                f"the server at {self.name} cannot map this machine's shared memory: leave that off where the server "
                f"runs on another machine, in another container or as another user ({reason})"
            )
        if "find shared memory region" in reason:
            return RestartedServerError(f"the server at {self.name} was started anew: ask again ({reason})")
        if any(words in reason for words in _OVERLOADED):
            return OverloadedError(f"the server at {self.name} is overloaded: ask again later ({reason})")
        if code is grpc.StatusCode.CANCELLED:
            return RequestError("the request was cancelled: its client was closed")
        if code is grpc.StatusCode.NOT_FOUND and "has no available versions" in reason:
            return ServerUnavailableError(f"the server at {self.name} is stopping: ask another, or later ({reason})")
        if "is not healthy" in reason:
            return ServerUnavailableError(
                f"the server at {self.name} has lost the process of a model: start it again, or ask another ({reason})"
            )
        if code is grpc.StatusCode.UNAVAILABLE:
            return ServerUnavailableError(f"no server answers gRPC at {self.name}: {self._advice(reason)} ({reason})")
        if match := _UNKNOWN_MODEL.search(reason):
            return RequestError(
                f"the server at {self.name} does not serve the model {match[1]!r}: start it with "
                f"`homomorph serve --model morph --model {match[1]}` ({reason})"
            )
        return RequestError(f"the server at {self.name} refused: {reason}")

    def _advice(self, reason: str) -> str:
        """Return advice for the case that no server answers."""
        if any(words in reason for words in ("http1", "HTTP status", "parsing HTTP/2")):
            return (
                "another server is there, or this is Triton's HTTP port: give the port of its gRPC, 8001 unless chosen"
            )
        found = _environments_proxy() if self.proxy is None else None
        if found is not None and not all(_goes_past_proxy(_split(url)[0]) for url in self.urls):
            host, (variable, proxy) = _split(self.urls[0])[0], found
            return (
                f"gRPC goes through the proxy of the environment, {variable}={proxy}: list {host} in no_proxy, or give "
                'proxy="" for none'
            )
        return "start one with `homomorph serve`, or give its host:port"


_OVERLOADED = ("Exceeds maximum queue size", "Request timeout expired")
"""Parts of the server's messages when a queue is full, and when a request waited too long or would be too late."""


def parse_urls(url: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of an argument: one, several with commas between, or a sequence."""
    urls = url.split(",") if isinstance(url, str) else url
    return tuple(each.strip() for each in urls)


def check_timeout(timeout_s: float | None) -> float:
    """Return a positive timeout in seconds, at most `LONGEST_TIMEOUT_S`, which also replaces None.

    Raises:
        DeadlineError: the timeout is not positive, so no answer can be in time.
        SettingsError: the timeout is not a number.
    """
    if timeout_s is None:
        return LONGEST_TIMEOUT_S
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, SupportsFloat):
        raise SettingsError(f"the timeout must be a number of seconds, or None for no limit, not {timeout_s!r}")
    if not timeout_s > 0:
        raise DeadlineError(f"the timeout must be more than 0 s, not {timeout_s:g} s")
    return min(float(timeout_s), LONGEST_TIMEOUT_S)


def _trace_headers() -> dict[str, str]:
    """Return W3C's `traceparent` and `tracestate` of the span that the caller is in; empty without OpenTelemetry."""
    headers: dict[str, str] = {}
    try:
        from opentelemetry.propagate import inject
    except ImportError:  # it is not a dependency
        return headers
    inject(headers)
    return headers


def _environments_proxy() -> tuple[str, str] | None:
    """Return the variable that gRPC takes its proxy from, and the proxy; None if no variable is set."""
    for variable in _PROXIES:
        if proxy := os.environ.get(variable):
            return variable, proxy
    return None


def _goes_past_proxy(host: str) -> bool:
    """Whether the environment excludes a host from its proxy."""
    listed = next((found for name in _NO_PROXY if (found := os.environ.get(name))), "")
    return any(host.strip("[]").endswith(end.strip()) for end in listed.split(",") if end.strip())


def _split(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ServerUnavailableError(f"{url!r} is no address: give host:port of Triton's gRPC, such as {DEFAULT_URL}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ServerUnavailableError(f"{url!r} could be several addresses: write [{host}]:{port}")
    return host, int(port)


def _address(url: str, family: socket.AddressFamily) -> str:
    host, port = _split(url)
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise ServerUnavailableError(f"the name {host} cannot be resolved: {error}") from error
    return str(found[0][4][0])


def _read_pem(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"the file {path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in content:  # gRPC would only say that no server answers
        raise SettingsError(f"the file {path} is not a certificate or key: it must be in PEM format")
    return content
