"""The table of figures: which rows it has, and how a number is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from homomorph.evaluation.results import MethodResult

ABOUT = {
    "reconstruction": "D(E(a)) against a: dB, and structural similarity; higher is better",
    "lpips": "D(E(a)) against a in LPIPS; lower is better",
    "label_loss": "share of a's labels that the judge reads rightly in a, minus the same in D(E(a)); 0 is best",
    "transfer": "labels of the group that differ and now read as b's, at v_g = 1; higher is better",
    "transfer_direction": "labels that a CycleGAN changes, in the pairs where it can; higher is better",
    "preservation": "labels outside the group that still read as a's, at v_g = 1; higher is better",
    "monotonicity": "rank correlation of v_g with the probability of b's labels; 1 is even",
    "counterfactual": "against a drawn again with b's options of the group: 0 = doing nothing, 1 = the truth, encoded",
    "counterfactual_half": "the same at v_g = 0.5, in the colour half way",
    "movement": "how far the group alone moves a picture, as a share of the way from a to b, in mean |difference|",
    "jump": "largest step / mean step along the path; 1 is even",
    "ppl": "length of the path in d; shorter is smoother",
    "pdv": "variance of the steps; smaller is more even",
    "pps": "even steps and a short path, 0 to 1; higher is better",
    "frechet": "distance of frames to real pictures, in the judge's features; lower is more believable",
    "frechet_reconstruction": "the same of reconstructions alone: the part that is not the path's; 0 is best",
    "fid": "the same of frames in Inception's features, as papers report it; lower is better",
    "ghost": "on the path, distance of each place to the nearer end: 0 = one picture or the other, 1 = pixel blending",
    "ghost_floor": "the same of an end, encoded and decoded: the part that is not the path's",
    "ghost_others_0": "ghost with one group on its way and the others at 0",
    "ghost_others_1": "ghost with one group on its way and the others at 1",
    "symmetry": "difference of b's share between left and right where both pictures are symmetric; 0 is best",
    "background": "error on pure white, in grey levels",
    "endpoint": "v = 1 against b encoded and decoded, in grey levels",
    "shift": "transfer of shifted pictures minus transfer; 0 is best",
    "cost": "of training and of a frame; frame_time is a multiple of homomorph's",
}
"""What each figure says, and which way is better."""

_UNLIKE_PARTS = ("reconstruction", "background", "movement", "cost")
"""Figures whose parts are not alike, and have no mean."""


def table_rows(results: Mapping[str, MethodResult]) -> list[tuple[str, list[float | None], str, bool]]:
    """Lay the figures out as rows.

    Returns:
        (name, value per method or None, what it says, whether it is one group's or part's); the mean over the groups
        comes first where a figure has groups.
    """
    rows: list[tuple[str, list[float | None], str, bool]] = []
    all_figures = [result.figures for result in results.values()]
    for name in (name for name in ABOUT if any(name in figures for figures in all_figures)):
        found = [figures.get(name) for figures in all_figures]
        parts = list(dict.fromkeys(part for value in found if isinstance(value, dict) for part in value))
        if parts and name not in _UNLIKE_PARTS:
            rows.append((name, [mean_of(value) for value in found], ABOUT[name], False))
        elif not parts:
            rows.append((name, [value if isinstance(value, float) else None for value in found], ABOUT[name], False))
        for part in parts:
            values = [value.get(part) if isinstance(value, dict) else None for value in found]
            whole = name in _UNLIKE_PARTS
            rows.append((f"{name} {part}" if whole else part, values, ABOUT[name] if whole else "", not whole))
    return rows


def mean_of(figure: float | dict[str, float] | None) -> float | None:
    """Mean of a figure over its groups; a figure without groups itself."""
    return float(np.mean(list(figure.values()))) if isinstance(figure, dict) else figure


def format_figure(value: float | None) -> str:
    """Print a figure for people; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}" if abs(value) >= 2 else f"{value:.3f}"
