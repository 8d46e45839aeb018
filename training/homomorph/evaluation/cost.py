"""Costs of a method: its training data, its weights, and its time for a frame."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numpy as np

from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.methods import ComparedMethod
from homomorph.models.config import RESIDUAL
from homomorph.runs.record import TrainingRecord

FRAMES = 9
"""Frames of the morphs that are timed."""
TURNS = 15
"""Number of turns; in each, every method is timed once."""
_WARM_UP = 3
_BYTES = 4  # of a weight in float32


def frame_times(methods: Mapping[str, ComparedMethod], held_out: HeldOut) -> dict[str, float]:
    """Time a frame of each method, pictures in and out, with the strengths of all groups rising together.

    A method that switches has one frame in a morph, the changed picture; the others have `FRAMES`.

    Returns:
        Median milliseconds a frame.
    """
    strengths = np.tile(
        np.linspace(0, 1, FRAMES, dtype=np.float32)[None, :, None], (1, 1, len([*held_out.groups, RESIDUAL]))
    )
    frames = {name: 1 if method.switches else FRAMES for name, method in methods.items()}
    times_ms: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(_WARM_UP + TURNS):
        for name, method in methods.items():
            began = time.perf_counter()
            method.morph(held_out.source[:1], held_out.target[:1], strengths)
            if turn >= _WARM_UP:
                times_ms[name].append((time.perf_counter() - began) * 1000 / frames[name])
    return {name: statistics.median(values) for name, values in times_ms.items()}


def cost(method: ComparedMethod, *, frame_time: float, training: TrainingRecord | None) -> dict[str, float]:
    """Gather the figure `cost`.

    Args:
        method: the method.
        frame_time: its time for a frame, as a multiple of the reference's.
        training: cost of its training; None if unknown.
    """
    millions = method.parameters / 1e6
    return {
        "training_pictures_thousands": training.pictures / 1000 if training else float("nan"),
        "training_hours": training.hours if training else float("nan"),
        "parameters_millions": millions,
        "parameters_per_attribute_millions": millions / method.attributes if method.attributes else float("nan"),
        "weights_mb": millions * _BYTES,
        "frame_time": frame_time,
    }
