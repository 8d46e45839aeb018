"""Time several candidates in turns, so that a disturbance of the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from homomorph.progress import Progress, Report, silent


@dataclass(frozen=True)
class Timing:
    """Median and spread of a repeated measurement."""

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
        candidates: functions to time, by name.
        repeats: turns that count, at least 10.
        warm_up: turns before those.
        turn_ms: length of a turn, which calls its candidate repeatedly and counts the mean of the calls.
        stage: name of the stage in progress reports.
        report: called when each turn begins.
        time_ms: `time_ms(candidate, calls)` returns the milliseconds of one call; None: `wall_ms`.
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
    """Call the candidate `calls` times; return the milliseconds of one call by the wall clock.

    A call ends when the GPU has computed what it started there.
    """
    start = time.perf_counter()
    for _ in range(calls):
        candidate()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls * 1e3


def device_name(device: str) -> str:
    """Return the GPU's name, or `cpu`."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def _calls_for(
    candidate: Callable[[], object], turn_ms: float, time_ms: Callable[[Callable[[], object], int], float]
) -> int:
    candidate()  # the first call may be slow: it allocates and compiles
    return max(1, round(turn_ms / time_ms(candidate, 1)))


def _summarise(times_ms: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times_ms, n=4)
    return Timing(median, (high - low) / median)
