"""Requests that are encoded once and sent many times, over gRPC and over HTTP.

While time is measured, the load generator only sends and receives bytes. It parses and compares the first answer only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from homomorph_bench.serving.load_generator import RequestFailed
from homomorph_client.names import MORPH

_MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
"""The call of Triton's public protocol."""
_TYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}
_ANY_LENGTH = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
"""gRPC's default limit is 4 MiB."""
_READ_BUFFER_BYTES = 1 << 20
"""Larger than a usual answer, so that reading one does not pause the connection."""


class GrpcRequest:
    """One request to the model `morph` of Triton. Create it within the event loop that sends it."""

    def __init__(
        self, url: str, inputs: Mapping[str, npt.NDArray[np.generic]], *, timeout_s: float | None = None
    ) -> None:
        """Encode a request.

        Args:
            url: host:port of Triton's gRPC.
            inputs: tensors by name, with their batch axis.
            timeout_s: sent to the server, which may drop a request that waits longer; None: no timeout.
        """
        request = service_pb2.ModelInferRequest(model_name=MORPH)
        if timeout_s is not None:
            request.parameters["timeout"].int64_param = round(timeout_s * 1e6)
        for name, array in inputs.items():
            request.inputs.add(name=name, datatype=_TYPES[array.dtype], shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        self._request: bytes = request.SerializeToString()
        self._channel = grpc.aio.insecure_channel(url, options=_ANY_LENGTH)
        self._call = self._channel.unary_unary(_MODEL_INFER)  # without serialisers, it sends and returns bytes

    async def send(self) -> bytes:
        """Send it and return the answer's bytes.

        Raises:
            RequestFailed: Triton refused it or cannot be reached.
        """
        try:
            answer: bytes = await self._call(self._request)
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(f"{error.code().name}: {error.details()}") from error
        return answer

    @staticmethod
    def frames(answer: bytes) -> bytes:
        """Return the only output's bytes."""
        (output,) = service_pb2.ModelInferResponse.FromString(answer).raw_output_contents
        return bytes(output)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


class HttpRequest:
    """One HTTP/1.1 POST over connections that are kept alive. Create it within the event loop that sends it."""

    def __init__(self, host: str, port: int, path: str, body: bytes) -> None:
        """Encode a request with a body of `application/octet-stream`."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._address = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self) -> bytes:
        """Send it on an idle connection or a new one, and return the answer's body.

        Raises:
            RequestFailed: the answer's status is not 200, or there is no answer.
        """
        while True:
            kept = bool(self._idle)
            try:
                reader, writer = self._idle.pop() if kept else await self._connect()
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                break
            except (OSError, EOFError) as error:  # an incomplete answer is an EOFError
                # A server closes connections that were idle for seconds. This shows only at the next use.
                if not kept:
                    raise RequestFailed(f"no answer: {error}") from error
        self._idle.append((reader, writer))
        status = head.split(maxsplit=2)[1]
        if status != "200":
            raise RequestFailed(f"status {status}")
        return body

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._address, limit=_READ_BUFFER_BYTES)

    @staticmethod
    def frames(answer: bytes) -> bytes:
        """Return the answer: its body holds only the frames."""
        return answer

    async def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()
