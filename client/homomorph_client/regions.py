"""A client's pool of shared memory regions. A region serves one request at a time and is reused by later ones.

A request can fail in the client, for example by its deadline, while the server still writes its frames. Triton (24.09
and newer) then refuses to unregister the region. So after a failure the client asks the server to unregister the
region, and does not touch it until the server has done so.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryUnregisterRequest,
)
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client.connection import Connection
from homomorph_client.errors import SettingsError
from homomorph_client.shared_memory import Region, region_size
from homomorph_client.shared_memory_key import key_header

_CALL_TIMEOUT_S = 5.0
"""Timeout for registering or unregistering a region, which takes the server less than a millisecond."""
_CLOSE_TIMEOUT_S = 10.0
"""Longest wait at the end for abandoned requests. Regions that are still in use then stay mapped in the server."""


class Regions:
    """All regions of one client that are registered with its server; thread-safe."""

    def __init__(self, connection: Connection) -> None:
        """Create a gRPC stub on the client's connection. Nothing is sent before the first call.

        Raises:
            SettingsError: there are several servers; a request might reach one that has not registered the region.
        """
        if len(connection.urls) > 1:
            raise SettingsError(f"shared memory is for one server, not for {len(connection.urls)}: give one address")
        self._connection = connection
        self._channel = connection.open(grpc)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._lock = threading.Lock()
        self._lent: set[Region] = set()
        self._free: list[Region] = []
        self._retired: list[Region] = []

    def lend(self, request: ModelInferRequest) -> Lease:
        """Put a request's tensors into a free region, or into a new one if none is large enough.

        Raises:
            SharedMemoryError: there is too little memory, or the server cannot map this machine's shared memory.
            HomomorphError: the server does not answer, or refuses.
        """
        size = region_size(request)
        with self._lock:
            fitting = [region for region in self._free if region.size >= size]
            region = min(fitting, key=lambda region: region.size) if fitting else None
            if region:
                self._free.remove(region)
                self._lent.add(region)
            elif self._free:  # it is too small for requests like this one
                self._retired.append(self._free.pop())
        return Lease(self, region or self._mapped(size), request)

    def take_back(self, region: Region, *, usable: bool) -> None:
        """Take back a region. After an error it is not reused, because the server may still write into it."""
        with self._lock:
            if region in self._lent:  # false if `forget` was called meanwhile
                self._lent.remove(region)
                (self._free if usable else self._retired).append(region)

    def forget(self) -> None:
        """Stop using all current regions: the server that registered them has ended."""
        with self._lock:
            self._retired += [*self._free, *self._lent]
            self._free.clear()
            self._lent.clear()

    def close(self) -> None:
        """Unregister all regions, waiting for abandoned requests, and close the channel."""
        self.forget()
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        while not self._release_retired() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._channel.close()

    def _mapped(self, size: int) -> Region:
        """Return a new region that is registered with the server; it counts as lent."""
        self._release_retired()
        region = Region(size)
        message = SystemSharedMemoryRegisterRequest(name=region.name, key=f"/{region.name}", byte_size=region.size)
        try:
            self._stub.SystemSharedMemoryRegister(message, **self._options())
        except grpc.RpcError as error:
            raise self._connection.typed_error(error, timeout_s=_CALL_TIMEOUT_S) from error
        finally:
            region.unlink()
        with self._lock:
            self._lent.add(region)
        return region

    def _release_retired(self) -> bool:
        """Unregister the regions that are not used any more; return whether the server has released all of them."""
        with self._lock:
            retired, self._retired = self._retired, []
        held = [region for region in retired if self._is_held(region)]
        with self._lock:
            self._retired += held
        return not held

    def _is_held(self, region: Region) -> bool:
        """Unregister a region; return whether the server still uses it. A server that has ended uses none."""
        try:
            self._stub.SystemSharedMemoryUnregister(
                SystemSharedMemoryUnregisterRequest(name=region.name), **self._options()
            )
        except grpc.RpcError as error:
            return "currently in use" in (error.details() or "")
        return False

    def _options(self) -> dict[str, Any]:
        metadata = dict(key_header(self._connection.port)) | dict(self._connection.metadata())
        return {"timeout": _CALL_TIMEOUT_S, "metadata": list(metadata.items())}


class Lease:
    """One request's use of a region, which ends with the `with` block."""

    def __init__(self, regions: Regions, region: Region, request: ModelInferRequest) -> None:
        self._regions = regions
        self._region = region
        self.request = region.place(request)
        """The request to send instead of the original; it refers to the region."""

    def frames(self, response: ModelInferResponse) -> npt.NDArray[np.uint8]:
        """Return a copy of the answer's frames: uint8 [S, H, W, 3], RGB, values in [0, 255].

        Raises:
            RequestError: the answer holds no frames.
        """
        return self._region.frames(self.request, response)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._regions.take_back(self._region, usable=error is None)
