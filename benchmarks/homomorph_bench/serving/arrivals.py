"""When requests come that nobody coordinates."""

from __future__ import annotations

import random


def poisson_arrivals(rate: float, duration_s: float, seed: int) -> list[float]:
    """Return the seconds at which requests arrive, in [0, duration_s), ascending.

    Gaps are exponential and independent: a Poisson process, as of many users who do not know of each other.

    Args:
        rate: requests a second, on average.
        duration_s: seconds.
        seed: the same gives the same arrivals, so that every system gets the same bursts.
    """
    generator = random.Random(seed)
    arrivals = []
    now = generator.expovariate(rate)
    while now < duration_s:
        arrivals.append(now)
        now += generator.expovariate(rate)
    return arrivals
