"""One piece of this machine's POSIX shared memory, and a request whose pictures and frames lie in it.

A server on the same machine maps it too, so that only a few hundred bytes of each request and answer are sent.
"""

from __future__ import annotations

import math
import mmap
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from homomorph_client.codec import decode, frames_shape
from homomorph_client.errors import SharedMemoryError

_FOLDER = Path("/dev/shm")
"""Where Linux shows POSIX shared memory as files."""
_ALIGNMENT = 64
"""In bytes: tensors begin at multiples, as backends that compute on them in place want it."""
_GRANULE = 1 << 20
"""In bytes: sizes are multiples, so that a few frames more do not need another region."""


class Region:
    """A piece of shared memory, with a name until `unlink`; it is gone when both sides have let go of it."""

    def __init__(self, size: int) -> None:
        """Reserve at least `size` bytes.

        Raises:
            SharedMemoryError: there is no room for it, or no such memory on this system.
        """
        self.size = _rounded(size, _GRANULE)
        self.name = f"homomorph-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(_FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                # Before it is written to: where memory runs out only then, this process and the server are killed.
                os.posix_fallocate(descriptor, 0, self.size)
                self._memory = mmap.mmap(descriptor, self.size)
            except OSError:
                self.unlink()
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SharedMemoryError(
                f"{self.size >> 20} MiB of shared memory cannot be had in {_FOLDER}: {error.strerror}; "
                "make it larger, or leave shared memory off"
            ) from error

    def unlink(self) -> None:
        """Take its name away: who has mapped it keeps it, and nobody else can. Nothing is left behind by a crash."""
        (_FOLDER / self.name).unlink(missing_ok=True)

    def place(self, request: ModelInferRequest) -> ModelInferRequest:
        """Copy a request's tensors into it, and return the request that says where they are and frames shall be."""
        placed = ModelInferRequest(model_name=request.model_name, inputs=request.inputs)
        for name, value in request.parameters.items():
            placed.parameters[name].CopyFrom(value)
        start = 0
        for tensor, content in zip(placed.inputs, request.raw_input_contents, strict=True):
            self._memory[start : start + len(content)] = content
            self._point(tensor.parameters, start, len(content))
            start += _rounded(len(content), _ALIGNMENT)
        self._point(placed.outputs.add(name="FRAMES").parameters, start, math.prod(frames_shape(request)))
        return placed

    def frames(self, placed: ModelInferRequest, response: ModelInferResponse) -> npt.NDArray[np.uint8]:
        """Return a copy of the frames of the answer to a placed request: uint8 [S, H, W, 3].

        Raises:
            RequestError: the answer holds no frames.
        """
        (output,) = placed.outputs
        start = output.parameters["shared_memory_offset"].int64_param
        size = output.parameters["shared_memory_byte_size"].int64_param
        return decode(response, [memoryview(self._memory)[start : start + size]])

    def _point(self, parameters: Any, start: int, size: int) -> None:
        parameters["shared_memory_region"].string_param = self.name
        parameters["shared_memory_offset"].int64_param = start
        parameters["shared_memory_byte_size"].int64_param = size


def region_size(request: ModelInferRequest) -> int:
    """Return how many bytes a request's tensors and its frames take."""
    tensors = sum(_rounded(len(content), _ALIGNMENT) for content in request.raw_input_contents)
    return tensors + math.prod(frames_shape(request))


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
