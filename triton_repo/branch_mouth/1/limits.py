"""Check requests against the limits in a model's configuration, and read their parameters."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MAX_TIMEOUT_US = 10**12
"""Eleven days. The upper bound also catches negative timeouts, which Triton passes on as very large numbers."""


class RequestError(Exception):
    """A request is outside the model's limits; the message goes to the client."""


def is_urgent(parameters: str) -> bool:
    """Return the parameter `urgent` of a request; the default is False.

    Args:
        parameters: the request's parameters as JSON; may be empty.

    Raises:
        RequestError: `urgent` is neither true nor false.
    """
    urgent = json.loads(parameters or "{}").get("urgent", False)
    if not isinstance(urgent, bool):
        raise RequestError(f"the parameter urgent must be true or false, not {urgent!r}")
    return urgent


def timeout_s(timeout_us: int) -> float:
    """Return a request's timeout in seconds; infinity for 0, which means no timeout.

    Raises:
        RequestError: the timeout is negative or too long.
    """
    if not 0 <= timeout_us <= MAX_TIMEOUT_US:
        raise RequestError(f"timeout must be from 0 (none) to {MAX_TIMEOUT_US} microseconds")
    return timeout_us / 1e6 if timeout_us else math.inf


def check(tensors: dict[str, Tensor], checks: dict[str, Any]) -> None:
    """Check a request's tensors [B, ...] against the limits in the model's configuration.

    Triton itself checks types, the number of axes and the lengths of fixed axes.

    Raises:
        RequestError: the length of an axis is out of bounds or differs between inputs, there are too many frames or
            pictures for their size, or a value is out of range.
    """
    first: dict[str, tuple[str, int]] = {}  # by axis: the first input with this axis, and its length
    for name, tensor in tensors.items():
        for dim, length in zip(checks["dims"][name], tensor.shape[1:], strict=True):
            if isinstance(dim, int):
                continue
            minimum, maximum, multiple_of = checks["axes"][dim]
            if not minimum <= length <= maximum or length % multiple_of:
                kind = f"a multiple of {multiple_of} " if multiple_of > 1 else ""
                raise RequestError(f"{name}: {dim} must be {kind}from {minimum} to {maximum}, not {length}")
            first_name, first_length = first.setdefault(dim, (name, length))
            if length != first_length:
                raise RequestError(f"{name}: {dim} must be {first_length} as in {first_name}, not {length}")
    if checks["pixels"]:
        axes, stride, maximum = checks["pixels"]["axes"], checks["pixels"]["stride"], checks["pixels"]["maximum"]
        lengths = [first[axis][1] for axis in axes]
        name = first[axes[0]][0]
        count = tensors[name].shape[0] * math.prod(lengths[:-2])
        height, width = (length * stride for length in lengths[-2:])
        if count * height * width > maximum:
            raise RequestError(
                f"{name}: too many {'frames' if axes[0] == 'S' else 'pictures'} for their size: {count} of "
                f"{height}x{width} pixels are {count * height * width} pixels, not at most {maximum}"
            )
    for name, (low, high) in checks["ranges"].items():
        values = tensors[name]
        refused = values[~((values >= low) & (values <= high))]  # the negated comparison includes NaN
        if refused.numel():
            raise RequestError(f"{name}: every value must be a number from {low:g} to {high:g}, not {refused[0]:g}")
