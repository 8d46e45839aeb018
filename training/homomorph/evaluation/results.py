"""All measurements of one method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homomorph.evaluation.figures import Pictures

Figures = dict[str, "float | dict[str, float]"]
"""Figures by name; those of a group, or of another part, by its name."""


@dataclass
class MethodResult:
    """Figures of one method, and the pictures that show them."""

    figures: Figures
    path_steps: NDArray[np.float64]
    """Mean of d between neighbouring frames, [PATH_FRAMES - 1]."""
    responses: dict[str, NDArray[np.float64]]
    """Per group, the mean probability of b's labels at each strength, [GROUP_FRAMES]."""
    direction_responses: dict[str, NDArray[np.float64]]
    """Per direction of a CycleGAN, that of its one label in the pairs that it can change, [GROUP_FRAMES]."""
    pairs: int
    """Number of pairs that were measured."""
    displayed_pairs: list[int]
    """Numbers of the P pairs whose frames are kept."""
    path_strips: Pictures
    """Frames of the displayed pairs with all strengths equal, [P, PATH_FRAMES, 3, H, W]."""
    group_strips: dict[str, Pictures]
    """Per group, their frames with this group's strength alone, [P, GROUP_FRAMES, 3, H, W]."""
    shifted_strips: dict[str, Pictures]
    """The same from shifted pictures, as for `shift`, with these at both ends: [P, GROUP_FRAMES + 2, 3, H, W]."""
    worst: dict[str, list[tuple[int, Pictures]]]
    """Per group, the pairs that came out worst: the pair's number and its frame at v_g = 1, [3, H, W]."""
