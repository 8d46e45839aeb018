"""What many latencies come to."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many percent of the values do not exceed (the nearest rank).

    No value is invented between two that were measured, so that a percentile is a latency that a request had.

    Args:
        values: at least one, in any order; infinite for requests that failed.
        percent: in (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"percentile {percent} of {len(values)} values")
    # The product comes first: 0.29 * 100 is not 29.
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]
