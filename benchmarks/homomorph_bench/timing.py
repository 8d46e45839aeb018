"""Times several ways of doing the same thing in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from homomorph.progress import Progress, Report, silent


@dataclass(frozen=True)
class Timing:
    """What repeating one measurement gave."""

    median_ms: float
    spread: float
    """Distance between the quartiles, divided by the median."""


def time_in_turns(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int,
    turn_ms: float = 2.0,
    stage: str = "timing",
    report: Report = silent,
    time_ms: Callable[[Callable[[], object], int], float] | None = None,
) -> dict[str, Timing]:
    """Time each candidate `repeats` times, one turn of each after the other.

    Args:
        candidates: what to call, by name.
        repeats: turns that count, at least 10.
        warm_up: turns before those.
        turn_ms: a turn calls its candidate as often as fits into this, and counts the mean of the calls.
        stage: what the reports call it.
        report: called when each turn begins.
        time_ms: calls a candidate so many times and returns the milliseconds of one call; by the wall clock if None.
    """
    time_ms = time_ms or wall_ms
    if repeats < 10:
        raise ValueError(f"repeats must be at least 10, not {repeats}")
    calls = {name: _calls_for(candidate, turn_ms, time_ms) for name, candidate in candidates.items()}
    times_ms: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + repeats):
        report(Progress(stage, turn + 1, warm_up + repeats))
        for name, candidate in candidates.items():
            elapsed_ms = time_ms(candidate, calls[name])
            if turn >= warm_up:
                times_ms[name].append(elapsed_ms)
    return {name: _summarise(values) for name, values in times_ms.items()}


def wall_ms(candidate: Callable[[], object], calls: int) -> float:
    """Call the candidate so many times; return the milliseconds of one call."""
    start = time.perf_counter()
    for _ in range(calls):
        candidate()
    return (time.perf_counter() - start) / calls * 1e3


def _calls_for(
    candidate: Callable[[], object], turn_ms: float, time_ms: Callable[[Callable[[], object], int], float]
) -> int:
    candidate()  # the first call pays for what later ones find ready
    return max(1, round(turn_ms / time_ms(candidate, 1)))


def _summarise(times_ms: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times_ms, n=4)
    return Timing(median, (high - low) / median)
