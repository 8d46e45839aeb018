"""A region of POSIX shared memory that holds the pictures and frames of a request.

A server on the same machine maps the region too, so that only a few hundred bytes of each request and answer are sent.
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
"""Folder in which Linux shows POSIX shared memory as files."""
_ALIGNMENT = 64
"""Alignment of tensors in bytes, for backends that compute on them in place."""
_GRANULE = 1 << 20
"""Sizes are rounded up to multiples of this many bytes, so that a few more frames do not need another region."""


class Region:
    """A region of shared memory. It has a name until `unlink`, and is freed when both processes have unmapped it."""

    def __init__(self, size: int) -> None:
        """Reserve at least `size` bytes.

        Raises:
            SharedMemoryError: there is too little shared memory, or the system has none.
        """
        self.size = _rounded(size, _GRANULE)
        self.name = f"homomorph-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(_FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                # Allocate before writing: running out of memory during a write kills this process and the server.
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
        """Unlink the shared memory. Existing mappings stay valid; no new process can open it, so a crash leaks none."""
        (_FOLDER / self.name).unlink(missing_ok=True)

    def place(self, request: ModelInferRequest) -> ModelInferRequest:
        """Copy a request's tensors into the region; return a request that refers to them and to the frames' space."""
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
    """Return the size of a request's tensors and frames, in bytes."""
    tensors = sum(_rounded(len(content), _ALIGNMENT) for content in request.raw_input_contents)
    return tensors + math.prod(frames_shape(request))


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
