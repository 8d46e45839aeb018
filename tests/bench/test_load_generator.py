"""The load of `homomorph bench serving`: arrivals, open and closed loops, percentiles, and the search of a rate."""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import time
from collections import Counter

import pytest

from homomorph_bench.serving.arrivals import poisson_arrivals
from homomorph_bench.serving.latencies import percentile
from homomorph_bench.serving.load_generator import RequestFailed, closed_loop, open_loop
from homomorph_bench.serving.search import RateSearch


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 5.0), (90, 9.0), (91, 10.0), (99, 10.0), (100, 10.0), (1, 1.0), (29, 3.0)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([10.0, 1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0, 5.0], percent) == expected


def test_percentile_of_a_whole_hundred_is_not_moved_by_rounding() -> None:
    assert percentile([float(value) for value in range(1, 101)], 29) == 29  # 0.29 * 100 is a little more than 29


def test_failed_requests_are_the_slowest() -> None:
    latencies_ms = [1.0] * 98 + [math.inf] * 2
    assert percentile(latencies_ms, 98) == 1
    assert percentile(latencies_ms, 99) == math.inf


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_of_nothing(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_arrivals_are_a_poisson_process() -> None:
    arrivals = poisson_arrivals(200, 100, seed=0)
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= 0
    assert arrivals[-1] < 100
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)  # 4 standard deviations
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    # Of an exponential distribution the mean and the standard deviation are equal; even gaps would have none.
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.05)
    counts = Counter(int(arrival) for arrival in arrivals)
    assert statistics.variance(counts[second] for second in range(100)) == pytest.approx(200, rel=0.5)


def test_arrivals_depend_on_the_seed_alone() -> None:
    assert poisson_arrivals(50, 10, seed=1) == poisson_arrivals(50, 10, seed=1) != poisson_arrivals(50, 10, seed=2)


@pytest.mark.parametrize("capacity", [3.0, 41.7, 99.9, 120.0])
def test_search_finds_the_largest_rate(capacity: float) -> None:
    search = RateSearch(100, tolerance=0.01)
    tried = []
    while not search.done:
        tried.append(search.rate)
        search.record(met=search.rate <= capacity)
    assert min(capacity, 100) - 1 <= search.best <= min(capacity, 100)
    assert search.best in tried, "only what was measured is reported"
    assert len(tried) <= 7


def test_search_without_any_rate() -> None:
    search = RateSearch(100)
    while not search.done:
        search.record(met=False)
    assert search.best == 0


def test_closed_loop_keeps_so_many_on_their_way() -> None:
    together, most = 0, 0

    async def send() -> bytes:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.01)
        together -= 1
        return b""

    load = asyncio.run(closed_loop(send, concurrency=4, requests=20))
    assert most == 4
    assert len(load.latencies_ms) == 20
    assert load.percentile(1) >= 10
    assert load.rate == pytest.approx(20 / load.elapsed_s)


def test_closed_loop_ends_after_its_time() -> None:
    async def send() -> bytes:
        await asyncio.sleep(0.01)
        return b""

    load = asyncio.run(closed_loop(send, concurrency=1, duration_s=0.1))
    assert 1 <= len(load.latencies_ms) <= 10
    assert load.elapsed_s >= 0.1


def test_closed_loop_sends_a_request_however_busy_the_machine() -> None:
    async def send() -> bytes:
        return b""

    assert len(asyncio.run(closed_loop(send, concurrency=4, duration_s=0)).latencies_ms) == 1


def test_open_loop_omits_nothing() -> None:
    """A system that stands still for 0.2 s in the sender's own thread holds up every request that was due meanwhile."""
    sent = 0

    async def send() -> bytes:
        nonlocal sent
        sent += 1
        if sent == 1:
            time.sleep(0.2)
        return b""

    load = asyncio.run(open_loop(send, [0.0, 0.05, 0.1, 0.15]))
    for due_s, latency_ms in zip([0.0, 0.05, 0.1, 0.15], load.latencies_ms, strict=True):
        assert latency_ms >= 200 - due_s * 1e3 - 1


def test_open_loop_does_not_wait_for_answers() -> None:
    """The first request is answered once the last one is on its way."""
    sent, last = 0, asyncio.Event()

    async def send() -> bytes:
        nonlocal sent
        sent += 1
        if sent == 20:
            last.set()
        await asyncio.wait_for(last.wait(), timeout=60)
        return b""

    assert len(asyncio.run(open_loop(send, [0.0] * 20)).latencies_ms) == 20


def test_open_loop_counts_failures_as_never_answered() -> None:
    async def send() -> bytes:
        raise RequestFailed("the queue is full")

    load = asyncio.run(open_loop(send, [0.0, 0.0]))
    assert load.latencies_ms == [math.inf, math.inf]
    assert load.rate == 0
