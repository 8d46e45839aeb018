"""Common base of the blocking and the asyncio client: settings, connection, and cached configurations of models."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeVar

import grpc
from tritonclient.grpc.service_pb2 import ModelConfigResponse, ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client.connection import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    Connection,
    Headers,
    Tls,
    check_timeout,
    parse_urls,
)
from homomorph_client.errors import HomomorphError, RequestError, ServerUnavailableError
from homomorph_client.names import MORPH
from homomorph_client.regions import Regions
from homomorph_client.served_model import ServedModel, to_json
from homomorph_client.stream_attempts import StreamAttempts
from homomorph_client.translation import ServedTranslation

Served = TypeVar("Served", ServedModel, ServedTranslation)


class BaseClient:
    """Settings of a client, its connection, and the configurations that it has read from the server."""

    _grpc: ModuleType
    """`grpc` or `grpc.aio`; both have the same functions for opening a connection."""

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        picture_size: int | None = None,
        model_name: str = MORPH,
        retries: int = DEFAULT_RETRIES,
        tls: Tls | None = None,
        headers: Headers | None = None,
        gzip: bool = False,
        shared_memory: bool = False,
        proxy: str | None = None,
    ) -> None:
        """Prepare a connection. Nothing is sent before the first call.

        Args:
            url: host:port of the server's gRPC. With several servers (a sequence, or separated by commas, or one name
                with several addresses) the calls go to them in turn, skipping those that do not answer.
            timeout_s: default timeout of a call in seconds, including retries; None: no limit.
            picture_size: height and width of the pictures, in pixels, a multiple of the model's stride; None: the size
                that the model was trained at.
            model_name: the served model.
            retries: number of retries, with growing pauses, when no server answers or it is overloaded; 0 to 4.
            tls: settings of an encrypted connection.
            headers: sent with every call, such as {"authorization": "Bearer ..."}; or a function that returns them,
                called for each call.
            gzip: whether to compress requests, for slow networks.
            shared_memory: whether to pass pictures and frames in shared memory instead of messages, for a server on
                the same machine. Streams always use messages.
            proxy: http://host:port of an HTTP proxy; None: the proxy of the environment (`grpc_proxy`, `https_proxy`,
                `http_proxy`, except for hosts in `no_proxy`); "": no proxy.

        Raises:
            ServerUnavailableError: `url` is not host:port.
            DeadlineError: `timeout_s` is not positive.
            SettingsError: `retries` is out of range, a file of `tls` cannot be used, or memory is to be shared with
                several servers.
        """
        self.timeout_s = check_timeout(timeout_s)
        self._connection = Connection(parse_urls(url), retries, tls, headers, gzip, proxy)
        self._picture_size = picture_size
        self._model_name = model_name
        self._known: dict[tuple[str, type], Any] = {}
        self._connect()
        self._regions = Regions(self._connection) if shared_memory else None
        self._closed = False

    def _connect(self) -> None:
        """Open the connection. It sends nothing before the first call.

        Raises:
            ServerUnavailableError: one of several names has no address.
            SettingsError: a file of `tls` cannot be used.
        """
        self._channel = self._connection.open(self._grpc)
        self._stub = GRPCInferenceServiceStub(self._channel)

    @property
    def url(self) -> str:
        """The servers' addresses."""
        return self._connection.name

    def _call_options(self, timeout_s: float | None) -> dict[str, Any]:
        """Return the arguments of every call in addition to its request.

        Raises:
            DeadlineError: the timeout is not positive.
            RequestError: the client is closed.
        """
        if self._closed:
            raise RequestError("this client is closed: make a new one")
        return {
            "timeout": self._seconds(timeout_s),
            "metadata": self._connection.metadata(),
            "compression": self._connection.compression,
        }

    def _seconds(self, timeout_s: float | None) -> float:
        return check_timeout(self.timeout_s if timeout_s is None else timeout_s)

    def _let_expire(self, request: ModelInferRequest, timeout_s: float | None) -> None:
        """Set the request's timeout, so that the server drops it when the client has stopped waiting.

        Triton does not report a cancelled call to the models of an ensemble.

        Raises:
            DeadlineError: the timeout is not positive.
        """
        microseconds = self._seconds(timeout_s) * 1e6
        request.parameters["timeout"].int64_param = max(1, round(microseconds))  # 0 would mean no timeout

    def _stream_attempts(self, timeout_s: float | None) -> StreamAttempts:
        options = self._call_options(timeout_s)
        # Without this header, Triton's stream errors have no gRPC status code.
        options["metadata"] = [*options["metadata"], ("triton_grpc_error", "true")]
        return StreamAttempts(options, self._connection.retries)

    def _remember(self, name: str, kind: type[Served], response: ModelConfigResponse) -> Served:
        served = kind.from_config(to_json(response.config), picture_size=self._picture_size)
        self._known[name, kind] = served
        return served

    def _typed(self, error: grpc.RpcError, timeout_s: float) -> HomomorphError:
        typed = self._connection.typed_error(error, timeout_s=timeout_s)
        if isinstance(typed, ServerUnavailableError):
            # A restarted server may serve another run.
            self._known.clear()
            if self._regions:
                self._regions.forget()
        return typed
