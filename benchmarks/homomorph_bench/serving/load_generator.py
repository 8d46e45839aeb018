"""Load on a system: closed loops wait for an answer before the next request, open loops do not.

One thread and one event loop send all requests. The load generator shares its cores with the measured system; more
threads would contend for the cores and for Python's lock. Its own processor time is measured (`LoadResult.cpu_s`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from homomorph_bench.serving.latencies import percentile

Send = Callable[[], Awaitable[bytes]]
"""Sends the measured request and returns the whole answer."""


class RequestFailed(Exception):
    """The system refused a request."""


@dataclass(frozen=True)
class LoadResult:
    """Latencies and rate of a system under one load."""

    latencies_ms: list[float]
    """One per request; infinite if it failed, for example because a queue was full."""
    elapsed_s: float
    """From the first request to the last answer."""
    cpu_s: float
    """Processor time of this process: the load generator, and the system itself where that runs in process."""

    @classmethod
    def joined(cls, loads: Sequence[LoadResult]) -> LoadResult:
        """Return the loads of several turns as one."""
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
    """Keep `concurrency` requests on their way: each answer starts the next request.

    Args:
        send: the system.
        concurrency: requests on their way at any time.
        requests: total number of requests; None: no limit but the duration.
        duration_s: when to stop sending; requests on their way at that time are awaited and counted. The first request
            is always sent: on a busy machine, a short time may be over before.

    Raises:
        RequestFailed: a request failed.
    """
    latencies_ms: list[float] = []
    sent = 0
    start, cpu_start = time.perf_counter(), time.process_time()

    async def user() -> None:
        nonlocal sent
        while (requests is None or sent < requests) and (not sent or time.perf_counter() - start < duration_s):
            sent += 1
            due_s = time.perf_counter()
            await send()
            latencies_ms.append((time.perf_counter() - due_s) * 1e3)

    await asyncio.gather(*(user() for _ in range(concurrency)))
    return LoadResult(latencies_ms, time.perf_counter() - start, time.process_time() - cpu_start)


async def open_loop(send: Send, arrivals_s: Sequence[float]) -> LoadResult:
    """Send each request at its time, without waiting for earlier answers.

    Latency counts from the time at which a request was due. A system that blocks the sender, such as one that computes
    in this thread, therefore pays for the delay (no coordinated omission).

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
        # Yield even when late, so that the event loop handles answers and sends requests in order.
        await asyncio.sleep(max(0.0, start + arrival - time.perf_counter()))
        tasks.append(asyncio.create_task(latency_ms(start + arrival)))
    latencies_ms = list(await asyncio.gather(*tasks))
    return LoadResult(latencies_ms, time.perf_counter() - start, time.process_time() - cpu_start)
