"""The limits of a served model's requests, which stand as JSON in the model's configuration."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class RequestError(Exception):
    """A request is outside the model's limits; the message goes to the client."""


def check(tensors: dict[str, Tensor], checks: dict[str, Any]) -> None:
    """Check a request's tensors [B, ...] against the limits in the model's configuration.

    Triton itself has checked types, numbers of axes and axes of fixed length.

    Raises:
        RequestError: an axis has a length that is out of bounds or differs between inputs, the frames are too many
            for their size, or a value is out of range.
    """
    first: dict[str, tuple[str, int]] = {}  # by axis: the first input that has it, and its length there
    for name, tensor in tensors.items():
        for dim, length in zip(checks["dims"][name], tensor.shape[1:], strict=True):
            if isinstance(dim, int):
                continue
            minimum, maximum, multiple_of = checks["axes"][dim]
            if not minimum <= length <= maximum or length % multiple_of:
                kind = f"a multiple of {multiple_of} " if multiple_of > 1 else ""
                raise RequestError(f"{name}: {dim} must be {kind}from {minimum} to {maximum}, not {length}")
            other, expected = first.setdefault(dim, (name, length))
            if length != expected:
                raise RequestError(f"{name}: {dim} must be {expected} as in {other}, not {length}")
    if checks["pixels"]:
        (name, steps), (_, height), (_, width) = (first[axis] for axis in checks["pixels"]["axes"])
        height, width = height * checks["pixels"]["stride"], width * checks["pixels"]["stride"]
        if steps * height * width > checks["pixels"]["maximum"]:
            raise RequestError(
                f"{name}: too many frames for their size: {steps} of {height}x{width} pixels are "
                f"{steps * height * width} pixels, not at most {checks['pixels']['maximum']}"
            )
    for name, (low, high) in checks["ranges"].items():
        values = tensors[name]
        refused = values[~((values >= low) & (values <= high))]  # written so that NaN is among them
        if refused.numel():
            raise RequestError(f"{name}: every value must be a number from {low:g} to {high:g}, not {refused[0]:g}")
