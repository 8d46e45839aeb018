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

from homomorph.evaluation.chunk import Chunk
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.methods import PixelBlend
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.redrawn import GHOST_STRENGTHS
from homomorph.evaluation.results import Figures

WINDOW = 5
"""Height and width of a window in pixels."""
MIRROR_LIMIT = 8.0
"""Largest mean difference between a window and its mirror image that still counts as symmetric, in grey levels."""
DIFFERENCE_LIMIT = 16.0
"""Smallest mean difference between A and B for which a window's share of B is defined, in grey levels."""


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


def collect_ghosts(values: PairValues, chunk: Chunk, path: Pictures) -> None:
    """Compare frames of the path with both ends in mixed colours.

    Args:
        values: receives the measurements.
        chunk: B pairs of a method that has frames between a and b.
        path: frames with all strengths equal from 0 to 1, uint8 [B, S, 3, H, W].
    """
    collect_ghost_frames(
        values, chunk, path[:, [round(strength * (path.shape[1] - 1)) for strength in GHOST_STRENGTHS]]
    )


def collect_ghost_frames(values: PairValues, chunk: Chunk, frames: Pictures) -> None:
    """The same of frames with all strengths at each of `GHOST_STRENGTHS`, uint8 [B, V, 3, H, W]."""
    redrawn = chunk.held_out.redrawn
    for column, strength in enumerate(GHOST_STRENGTHS):
        end_a = chunk.a if redrawn is None else redrawn.mixed_a[chunk.rows, column]
        end_b = chunk.b if redrawn is None else redrawn.mixed_b[chunk.rows, column]
        values.add("ghost.frames", nearest_error(frames[:, column], end_a, end_b))
        values.add("ghost.blends", nearest_error(pixel_blend(chunk.a, chunk.b, strength), end_a, end_b))
        values.add("symmetry", side_differences(frames[:, column], end_a, end_b))
        reconstructed = chunk.reconstructed_a if redrawn is None else chunk.method.reconstruct(end_a)
        if reconstructed is not None:
            values.add("ghost.floor", nearest_error(reconstructed, end_a, end_b))


def collect_group_ghosts(values: PairValues, chunk: Chunk, group: str) -> None:
    """Compare frames with one group on its way with both ends, the other groups at 0 and at 1.

    With the others at 0 the ends are a, and a drawn with b's options of the group; with the others at 1 they are b
    drawn with a's options of the group, and b. Pairs whose ends are the same picture do not count. Groups that are
    colours have no ghosts: what lies between is a colour, which `counterfactual_half` measures.
    """
    redrawn = chunk.held_out.redrawn
    if redrawn is None or group not in redrawn.counterfactuals_of_b:
        return
    ends = {
        0: (chunk.a, redrawn.counterfactuals[group][chunk.rows]),
        1: (redrawn.counterfactuals_of_b[group][chunk.rows], chunk.b),
    }
    for others, (first, second) in ends.items():
        differs = (first != second).any(axis=(1, 2, 3))
        if not differs.any():
            continue
        first, second = first[differs], second[differs]
        strengths = chunk.strengths(group, np.array(GHOST_STRENGTHS), others)[differs]
        frames = chunk.method.morph(chunk.a[differs], chunk.b[differs], strengths)
        for column, strength in enumerate(GHOST_STRENGTHS):
            blends = pixel_blend(first, second, strength)
            values.add(f"ghost_others_{others}.frames.{group}", nearest_error(frames[:, column], first, second))
            values.add(f"ghost_others_{others}.blends.{group}", nearest_error(blends, first, second))


def ghost_figures(values: PairValues) -> Figures:
    """`ghost`, `ghost_floor`, `ghost_others_0`, `ghost_others_1`, `symmetry`; nothing where no frames were compared."""
    if "ghost.frames" not in values:
        return {}
    blends = values.all("ghost.blends")
    of_groups: Figures = {}
    for name in ("ghost_others_0", "ghost_others_1"):
        of_group: dict[str, float] = {
            group: ghost(values.all(f"{name}.frames.{group}"), values.all(f"{name}.blends.{group}"))
            for group in values.names(f"{name}.frames.")
        }
        if of_group:
            of_groups[name] = of_group
    return {
        "ghost": ghost(values.all("ghost.frames"), blends),
        "ghost_floor": ghost(values.all("ghost.floor"), blends),
        **of_groups,
        "symmetry": values.mean("symmetry"),
    }


def pixel_blend(a: Pictures, b: Pictures, strength: float) -> Pictures:
    """(1 - v) a + v b: uint8 [N, 3, H, W] twice -> the same shape."""
    strengths = np.full((len(a), 1, 1), strength, dtype=np.float32)
    return PixelBlend().morph(a, b, strengths)[:, 0]
