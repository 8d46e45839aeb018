"""Figures of ghosts: whether each place of a frame shows one of two pictures or a mixture of both.

A and B are the two pictures that a place may show. On the built-in set they are a and b drawn again with every colour
mixed at the frame's strength v; pictures that cannot be drawn again stand for themselves.

`window_errors` gives e_A and e_B, the mean absolute error of a frame to A and to B in each 5x5 window. From them come:

- `ghost`: mean over all windows of min(e_A, e_B), divided by the same mean of the pixel blend of a and b at v. Both
  means are taken over all pairs and strengths before the division. 0 = every place shows one picture or the other,
  1 = as ghostly as blending.
- `symmetry`: how differently a frame changes on the left and on the right. The share of B shown at a place is
  e_A / (e_A + e_B): 0 = A, 1 = B, v for a pixel blend. `symmetry` is the mean absolute difference between a place's
  share and that of its mirror image, over the places where A and B are mirror images of themselves (`MIRROR_LIMIT`)
  and differ (`DIFFERENCE_LIMIT`). 0 = both sides change together, 1 = one side shows A and the other B.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

WINDOW = 5
"""Height and width of a window in pixels."""
MIRROR_LIMIT = 8.0
"""Largest mean difference between a window and its mirror image that still counts as symmetric, in grey levels."""
DIFFERENCE_LIMIT = 16.0
"""Smallest mean difference between A and B for which a window's share of B is defined, in grey levels."""

Pictures = NDArray[np.uint8]


def window_errors(pictures: Pictures, others: Pictures) -> Tensor:
    """Mean absolute difference in each window.

    Args:
        pictures: uint8 [N, 3, H, W].
        others: the same shape.

    Returns:
        Grey levels, float32 [N, H - 4, W - 4]: one value per window that lies within the picture.
    """
    difference = (torch.from_numpy(pictures).float() - torch.from_numpy(others)).abs().mean(dim=1, keepdim=True)
    return F.avg_pool2d(difference, WINDOW, stride=1).squeeze(1)


def nearest_error(frames: Pictures, a: Pictures, b: Pictures) -> NDArray[np.float64]:
    """Mean over all windows of the smaller of the two errors: uint8 [N, 3, H, W] three times -> grey levels [N]."""
    nearest = torch.minimum(window_errors(frames, a), window_errors(frames, b))
    return nearest.mean(dim=(1, 2)).double().numpy()


def ghost(errors: NDArray[np.float64], blend_errors: NDArray[np.float64]) -> float:
    """Divide the frames' mean `nearest_error` by that of the pixel blends; NaN if there is nothing to blend."""
    blended = blend_errors.sum()
    return float(errors.sum() / blended) if blended > 0 else float("nan")


def side_differences(frames: Pictures, a: Pictures, b: Pictures) -> NDArray[np.float64]:
    """Difference between left and right of the share of B shown, at each place where `symmetry` is defined.

    Args:
        frames: uint8 [N, 3, H, W].
        a: A of each frame, the same shape.
        b: B of each frame, the same shape.

    Returns:
        Values in [0, 1], flat over frames and places; their mean is the figure.
    """
    error_a, error_b = window_errors(frames, a), window_errors(frames, b)
    share = error_a / (error_a + error_b).clamp(min=1e-6)
    symmetric = (
        torch.maximum(window_errors(a, a[..., ::-1].copy()), window_errors(b, b[..., ::-1].copy())) <= MIRROR_LIMIT
    )
    difference = window_errors(a, b)
    differs = torch.minimum(difference, difference.flip(-1)) >= DIFFERENCE_LIMIT
    return (share - share.flip(-1)).abs()[symmetric & differs].double().numpy()
