"""Percentiles of latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is at least as large as `percent` of the values (the nearest rank).

    It does not interpolate: the result is a latency that was measured.

    Args:
        values: at least one, in any order; infinite for requests that failed.
        percent: in (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"percentile {percent} of {len(values)} values")
    # Multiply before dividing: 0.29 * 100 is not 29 in floating point.
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]
