"""Values for the inputs of served models: to trace and compile with, to warm up with, and to compare on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from homomorph_export.contract import Model, Tensor


def zeros(model: Model, batch: int, lengths: Mapping[str, int] | None = None) -> tuple[torch.Tensor, ...]:
    """Return all inputs of a request, filled with 0.

    Args:
        model: whose inputs they are.
        batch: size of the batch axis.
        lengths: lengths of axes by their letters; the others have their typical length.
    """
    return tuple(torch.from_numpy(np.zeros((batch, *tensor.shape(lengths)), tensor.dtype)) for tensor in model.inputs)


def numbers(tensor: Tensor, batch: int, lengths: Mapping[str, int] | None = None) -> NDArray[np.int64]:
    """Return whole numbers [B, S] in the tensor's range. Row b counts up from b and wraps around."""
    assert tensor.range is not None
    (length,) = tensor.shape(lengths)
    begins, counts = np.arange(batch, dtype=np.int64)[:, None], np.arange(length, dtype=np.int64)
    values: NDArray[np.int64] = (begins + counts) % (int(tensor.range[1]) + 1)
    return values


def warm_up(tensor: Tensor) -> NDArray[Any]:
    """Return values without the batch axis that make every part of a model run."""
    # Ones, not zeros: strengths of 0 would leave the branches cold.
    values: NDArray[Any] = numbers(tensor, 1)[0] if tensor.type == "INT64" else np.ones(tensor.shape(), tensor.dtype)
    return values
