"""Puts the details of real pictures back into a model's frames, at the pictures' own size.

A model draws frames at its own size, and loses what is finer than its features. What it lost of a picture P is known:
r = P - D(E(P)), at P's size. A frame x gets

    x + sum_k w_k r_k,    w_k = q_k / sum_j q_j * 1 / (1 + e_k^2 / _FAR^2),    q_k = p_k / (e_k^2 + _NEAR^2)

for each place, where e_k is how much x differs there from D(E(P_k)), in grey levels, and p_k is P_k's share of the
frame. So a place that shows P_k gets all of its details, and a place that shows something new gets none. A frame at
strength 0 is the source itself, pixel by pixel. Laplacian pyramids put details back in the same way (Burt and Adelson,
"The Laplacian Pyramid as a Compact Image Code", 1983); choosing them place by place is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

_NEAR = 2.0
"""Difference in grey levels that rounding and noise make."""
_FAR = 24.0
"""Difference in grey levels at which a place shows half of a picture's details."""
_WINDOW = 3
"""Side of the windows, in the model's pixels, over which differences are averaged."""
_SURROUNDINGS = 7
"""Side of the windows whose mean is a place's colour."""
_OF_COLOUR = 0.25
"""What a difference of colour alone counts: the details of hair stay when it gets another colour."""


@dataclass(frozen=True)
class Original:
    """A picture whose details may show in frames."""

    picture: npt.NDArray[np.uint8]
    """At the size of the result, uint8 [N, N, 3]."""
    decoded: npt.NDArray[np.uint8]
    """The same picture encoded and decoded, at the model's size, uint8 [s, s, 3]."""


def with_details(
    frames: npt.NDArray[np.uint8], originals: Sequence[Original], shares: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Enlarge frames, and put the details of real pictures back.

    Args:
        frames: of the model, uint8 [S, s, s, 3].
        originals: R pictures of the same size.
        shares: how much of each frame comes from each picture, in [0, 1], [S, R].

    Returns:
        uint8 [S, N, N, 3].
    """
    size = originals[0].picture.shape[0]
    lost = [original.picture.astype(np.float32) - _enlarged(original.decoded, size) for original in originals]
    result = np.empty((len(frames), size, size, 3), np.uint8)
    for row, (frame, of_frame) in enumerate(zip(frames, shares, strict=True)):
        weights = _weights(frame, [original.decoded for original in originals], of_frame)
        restored = _enlarged(frame, size).copy()
        for weight, details in zip(weights, lost, strict=True):
            restored += _enlarged(weight, size)[..., None] * details
        result[row] = np.rint(restored).clip(0, 255)
    return result


def _weights(frame: npt.NDArray[np.uint8], decoded: Sequence[npt.NDArray[np.uint8]], shares: Floats) -> list[Floats]:
    """How much of each picture's details each place of a frame gets, [s, s] for each picture."""
    errors = [np.square(_difference(frame, picture)) for picture in decoded]
    nearness = [share / (error + _NEAR**2) for error, share in zip(errors, shares, strict=True)]
    total = np.maximum(sum(nearness), 1e-12)
    shown = [near / total / (1 + error / _FAR**2) for near, error in zip(nearness, errors, strict=True)]
    return [weight.astype(np.float32) for weight in shown]


def _difference(frame: npt.NDArray[np.uint8], picture: npt.NDArray[np.uint8]) -> Floats:
    """How much two pictures differ around each place, in grey levels: uint8 [s, s, 3] twice -> [s, s]."""
    difference = frame.astype(np.float32) - picture
    shape = np.abs(difference - _box(difference, _SURROUNDINGS)).mean(axis=2)
    return _box(shape + _OF_COLOUR * np.abs(difference).mean(axis=2), _WINDOW)


def _box(values: Floats, side: int) -> Floats:
    """Mean over the window around each place of [H, W] or [H, W, C]; the edge is repeated beyond it."""
    margin = side // 2
    for axis in (0, 1):
        widths = [(0, 0)] * values.ndim
        widths[axis] = (margin + 1, margin)
        sums = np.cumsum(np.pad(values, widths, mode="edge"), axis=axis, dtype=np.float64)
        first, last = (np.take(sums, range(start, sums.shape[axis] - side + start), axis) for start in (0, side))
        values = ((last - first) / side).astype(np.float32)
    return values


def _enlarged(values: npt.NDArray[np.uint8] | Floats, size: int) -> Floats:
    """Resize a picture uint8 [s, s, 3], or weights float32 [s, s], to `size`; unchanged if it has that size."""
    smooth = Image.Resampling.BILINEAR if values.ndim == 2 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(values).resize((size, size), smooth), np.float32)
