"""Load on a system: closed loops, which wait for answers, and open ones, which do not.

One thread and one event loop send everything. The load generator runs on the cores that it measures, and threads would
contend for them and for Python's lock; what it costs is measured too (`LoadResult.cpu_s`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from homomorph_bench.serving.latencies import percentile

Send = Callable[[], Awaitable[bytes]]
"""Sends the one request that is measured, and returns the whole answer."""


class RequestFailed(Exception):
    """The system refused a request."""


@dataclass(frozen=True)
class LoadResult:
    """What a system did under a load."""

    latencies_ms: list[float]
    """Of each request; infinite if it failed, as under more requests than a queue holds."""
    elapsed_s: float
    """From the first request to the last answer."""
    cpu_s: float
    """Processor time of this process: the load generator's, and what runs in process."""

    @classmethod
    def joined(cls, loads: Sequence[LoadResult]) -> LoadResult:
        """Return several loads, one after the other, as one."""
        latencies_ms = [latency for load in loads for latency in load.latencies_ms]
        return cls(latencies_ms, sum(load.elapsed_s for load in loads), sum(load.cpu_s for load in loads))

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(map(math.isfinite, self.latencies_ms)) / self.elapsed_s

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return percentile(self.latencies_ms, percent)


async def closed_loop(
    send: Send, *, concurrency: int, requests: int | None = None, duration_s: float = math.inf
) -> LoadResult:
    """Keep so many requests on their way: each answer starts the next request.

    Args:
        send: the system.
        concurrency: requests on their way at any time.
        requests: how many in all; None for as many as the duration takes.
        duration_s: when to stop sending; what is on its way then is waited for, and counts.

    Raises:
        RequestFailed: a request failed, which under no more requests than these is not expected.
    """
    latencies_ms: list[float] = []
    sent = 0
    start, cpu_start = time.perf_counter(), time.process_time()

    async def user() -> None:
        nonlocal sent
        while (requests is None or sent < requests) and time.perf_counter() - start < duration_s:
            sent += 1
            due_s = time.perf_counter()
            await send()
            latencies_ms.append((time.perf_counter() - due_s) * 1e3)

    await asyncio.gather(*(user() for _ in range(concurrency)))
    return LoadResult(latencies_ms, time.perf_counter() - start, time.process_time() - cpu_start)


async def open_loop(send: Send, arrivals_s: Sequence[float]) -> LoadResult:
    """Send each request at its time, however late earlier answers are.

    Latency counts from the time that a request was due. A system that holds up the sender, as one does that computes in
    this very thread, is charged for the wait: nothing is omitted because a request could not be sent.

    Args:
        send: the system.
        arrivals_s: when requests are due, in seconds from now, ascending.
    """

    async def latency_ms(due_s: float) -> float:
        try:
            await send()
        except RequestFailed:
            return math.inf
        return (time.perf_counter() - due_s) * 1e3

    tasks = []
    start, cpu_start = time.perf_counter(), time.process_time()
    for arrival in arrivals_s:
        # Yields even when it is late, so that answers are taken in and requests go out in their order.
        await asyncio.sleep(max(0.0, start + arrival - time.perf_counter()))
        tasks.append(asyncio.create_task(latency_ms(start + arrival)))
    latencies_ms = list(await asyncio.gather(*tasks))
    return LoadResult(latencies_ms, time.perf_counter() - start, time.process_time() - cpu_start)
