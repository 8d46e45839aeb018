"""Calls of the launcher to its server: identify it, load models, unload models.

By default tritonserver lets every client load models, which are programs that it runs. So these calls are restricted to
holders of a key that is random for each start. They go over gRPC, or over HTTP on 127.0.0.1 if gRPC is encrypted and
requires a certificate.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc.service_pb2 import (
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client.errors import HomomorphError
from homomorph_client.shared_memory_key import HEADER_PREFIX, SHARED_MEMORY_KEY

CONTROL_KEY = "homomorph-control"
"""Name of the key for model control, tracing and logging."""
_CALL_TIMEOUT_S = 2.0
_LOAD_TIMEOUT_S = 180.0
_CONTROL_APIS = ("model-repository", "trace", "logging")
_FRESH_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""gRPC channel option: without it, a new channel inherits the reconnect delay of earlier channels that failed."""
_OTHER_APIS = ("health", "metadata", "inference", "model-config", "statistics")


class ControlError(HomomorphError):
    """A call of the launcher failed: the server does not answer, or refuses."""


@dataclass(frozen=True)
class Keys:
    """The random keys of one start."""

    control: str = field(default_factory=lambda: secrets.token_hex(16))
    shared_memory: str = field(default_factory=lambda: secrets.token_hex(16))

    def arguments(self, *, http: bool, http_is_open: bool) -> list[str]:
        """Return the arguments of tritonserver that restrict its calls.

        Args:
            http: whether the server also listens for HTTP.
            http_is_open: whether clients may request morphs over HTTP.
        """
        control_apis = ",".join(_CONTROL_APIS)
        words = [
            f"--grpc-restricted-protocol={control_apis}:{CONTROL_KEY}={self.control}",
            f"--grpc-restricted-protocol=shared-memory:{SHARED_MEMORY_KEY}={self.shared_memory}",
        ]
        if http:
            http_apis = ",".join(_CONTROL_APIS if http_is_open else (*_CONTROL_APIS, *_OTHER_APIS))
            words.append(f"--http-restricted-api={http_apis}:{CONTROL_KEY}={self.control}")
            words.append(f"--http-restricted-api=shared-memory:{SHARED_MEMORY_KEY}={self.shared_memory}")
        return words


class Control(ABC):
    """Restricted calls to a server, with the control key.

    Every method raises `ControlError` if the server refuses or does not answer within seconds.
    """

    @abstractmethod
    def ready_id(self) -> str | None:
        """Return the id (`--id`) of the server at the address; None while its models are loading."""

    @abstractmethod
    def load(self, model: str) -> None:
        """Load a model, or its newest version if it is loaded already."""

    @abstractmethod
    def unload(self, model: str) -> None:
        """Unload a model: it accepts no more requests, and requests on their way finish."""

    @abstractmethod
    def states(self) -> dict[str, str]:
        """Return the state of each model, such as READY or UNAVAILABLE."""

    def loaded(self) -> list[str]:
        """Return the names of the models that are loaded."""
        return [model for model, state in self.states().items() if state == "READY"]


class GrpcControl(Control):
    """Calls over gRPC."""

    def __init__(self, url: str, key: str) -> None:
        """`url` is host:port."""
        self._url = url
        self._metadata = [(f"{HEADER_PREFIX}{CONTROL_KEY}", key)]

    def ready_id(self) -> str | None:
        if not self._call("ServerReady", ServerReadyRequest()).ready:
            return None
        return str(self._call("ServerMetadata", ServerMetadataRequest()).name)

    def load(self, model: str) -> None:
        self._call("RepositoryModelLoad", RepositoryModelLoadRequest(model_name=model), _LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        self._call("RepositoryModelUnload", RepositoryModelUnloadRequest(model_name=model))

    def states(self) -> dict[str, str]:
        index = self._call("RepositoryIndex", RepositoryIndexRequest()).models
        return {entry.name: entry.state for entry in index}

    def _call(self, method: str, request: Any, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
        with grpc.insecure_channel(self._url, options=_FRESH_CONNECTION) as channel:
            stub = GRPCInferenceServiceStub(channel)
            try:
                return getattr(stub, method)(request, timeout=timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                raise ControlError(f"{method}: {error.details()}") from error


class HttpControl(Control):
    """Calls over HTTP."""

    def __init__(self, url: str, key: str) -> None:
        """`url` is host:port."""
        self._url = url
        self._headers = {CONTROL_KEY: key}

    def ready_id(self) -> str | None:
        with self._answer("GET", "/v2/health/ready") as ready:
            if ready.status == 400:
                return None
        metadata = self._json("GET", "/v2")
        return str(metadata.get("name")) if isinstance(metadata, dict) else None

    def load(self, model: str) -> None:
        self._json("POST", f"/v2/repository/models/{model}/load", _LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        self._json("POST", f"/v2/repository/models/{model}/unload")

    def states(self) -> dict[str, str]:
        index = self._json("POST", "/v2/repository/index")
        return {entry["name"]: entry.get("state", "") for entry in index}

    def _json(self, method: str, path: str, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
        with self._answer(method, path, timeout_s) as answer:
            body = answer.read()
            if answer.status != 200:
                raise ControlError(f"{path}: {answer.status} {body[:200].decode(errors='replace')}")
            return json.loads(body or "null")

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, timeout_s: float = _CALL_TIMEOUT_S) -> Iterator[http.client.HTTPResponse]:
        with contextlib.closing(http.client.HTTPConnection(self._url, timeout=timeout_s)) as connection:
            try:
                connection.request(method, path, headers=self._headers)
                yield connection.getresponse()
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ControlError(f"{path}: {error}") from error
