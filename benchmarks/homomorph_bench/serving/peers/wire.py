"""A morph as the body of an HTTP request: four lengths, then the tensors' bytes."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LENGTHS = struct.Struct("<4I")
"""H, W, S, K."""


def encode(source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8], strengths: npt.NDArray[np.float32]) -> bytes:
    """Return the body for pictures [1, H, W, 3] and strengths [1, S, K]."""
    lengths = _LENGTHS.pack(*source.shape[1:3], *strengths.shape[1:])
    return lengths + source.tobytes() + target.tobytes() + strengths.tobytes()


def decode(body: bytes) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures [1, H, W, 3] and strengths [1, S, K]."""
    height, width, steps, groups = _LENGTHS.unpack_from(body)
    picture = height * width * 3
    pixels = np.frombuffer(body, np.uint8, 2 * picture, _LENGTHS.size).reshape(2, 1, height, width, 3)
    strengths = np.frombuffer(body, np.float32, offset=_LENGTHS.size + 2 * picture).reshape(1, steps, groups)
    source, target = torch.from_numpy(pixels.copy())
    return source, target, torch.from_numpy(strengths.copy())
