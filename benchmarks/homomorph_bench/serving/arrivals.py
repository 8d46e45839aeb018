"""Random arrival times of independent requests."""

from __future__ import annotations

import random


def poisson_arrivals(rate: float, duration_s: float, seed: int) -> list[float]:
    """Return the times at which requests arrive, in seconds, in [0, duration_s), ascending.

    Gaps are exponential and independent: a Poisson process, the usual model of many independent users.

    Args:
        rate: requests a second, on average.
        duration_s: seconds.
        seed: of the random generator; systems that are compared get the same seed, hence the same bursts.
    """
    generator = random.Random(seed)
    arrivals = []
    now = generator.expovariate(rate)
    while now < duration_s:
        arrivals.append(now)
        now += generator.expovariate(rate)
    return arrivals
