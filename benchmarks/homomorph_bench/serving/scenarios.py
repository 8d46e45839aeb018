"""The measurements: MLPerf's scenarios, a sweep of concurrency, curves under open load, and the split of the time."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from homomorph.environment import environment
from homomorph.progress import Progress, Report, silent
from homomorph_bench.results import Record
from homomorph_bench.serving import perf_analyzer, process_usage, shortcuts, triton_time
from homomorph_bench.serving.arrivals import poisson_arrivals
from homomorph_bench.serving.load_generator import LoadResult, RequestFailed, Send, closed_loop, open_loop
from homomorph_bench.serving.measurements import Point, ServingMeasurements
from homomorph_bench.serving.search import RateSearch
from homomorph_bench.serving.systems import (
    CLIENT,
    DEADLINE_S,
    IN_PROCESS,
    SHARED,
    TRITON,
    ComparedSystem,
    RunningSystems,
    SystemSettings,
    start_systems,
)
from homomorph_client.errors import ServerError
from homomorph_export.contract import MAX_BATCH_SIZE

BATCHES = f"by {MAX_BATCH_SIZE}"
"""Added to a system's name where each request holds a whole batch."""
PERCENTILES = (50, 90, 99)
TYPICAL_SHARE = 0.7
"""Share of a system's saturating rate at which its tail latency is recorded."""
OVERLOAD = 1.5
"""Multiple of a system's saturating rate in the overload scenario."""
ONE_AT_A_TIME = "mean of one at a time"
TYPICAL_LOAD = f"mean at {TYPICAL_SHARE:.0%} of its saturating rate"


@dataclass(frozen=True)
class ScenarioSettings:
    """Numbers and lengths of the measurements."""

    turns: int = 10
    """Turns of SingleStream and of Offline; every turn measures each system once."""
    stream_requests: int = 60
    """Requests in a turn of SingleStream."""
    offline_s: float = 2.0
    """Length of a turn of Offline."""
    outstanding: int = 4 * MAX_BATCH_SIZE
    """Requests on their way in Offline."""
    window_s: float = 5.0
    """Length of a step of the sweep, and of a window of the open loads."""
    windows: int = 5
    """Windows of an open load, with the systems in turns. With one window, a single burst could decide the 99th
    percentile."""
    tolerance: float = 0.03
    """Precision of the search for the largest rate, as a share of the saturating rate."""
    concurrencies: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Concurrent requests at each step of the sweep."""
    shares: tuple[float, ...] = (0.1, 0.3, 0.5, TYPICAL_SHARE, 0.9)
    """Points of the curves, as shares of the saturating rate."""


QUICK = ScenarioSettings(
    stream_requests=5,
    offline_s=0.3,
    window_s=1.0,
    windows=2,
    tolerance=0.2,
    concurrencies=(1, 8),
    shares=(0.3, TYPICAL_SHARE),
)
"""A few minutes, for a first look."""


async def measure_serving(
    systems: SystemSettings,
    settings: ScenarioSettings,
    *,
    bound_ms: float,
    threads: int,
    analyzer: Path | None = None,
    report: Report = silent,
) -> ServingMeasurements:
    """Measure every system.

    Args:
        systems: which systems, and their request.
        settings: numbers and lengths of the measurements.
        bound_ms: largest 99th percentile in the Server scenario.
        threads: torch's threads, in process.
        analyzer: the executable perf_analyzer, to measure Triton by that too.
        report: called before each stage.

    Raises:
        ServerError: a server does not start, refuses a request, or answers other frames, or perf_analyzer fails.
        PictureError: `picture_size` is no multiple of the model's stride.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        async with start_systems(systems, report) as running:
            _, steps, branches = running.inputs.strengths.shape
            size = running.inputs.source.shape[1]
            placed = [torch.cuda.get_device_name(gpu) for gpu in systems.gpus]
            request = {"picture_size": size, "frames": steps, "branches": branches}
            engines = {engine: version(engine) for engine in systems.engines}
            runtimes = {"engines": engines} if engines else {}
            measured = ServingMeasurements(meta={**environment(), "gpus": placed, **request, **runtimes})
            scenarios = _Scenarios(running, settings, measured, report)
            await scenarios.single_stream()
            servers = {name: system for name, system in running.systems.items() if name not in (CLIENT, SHARED)}
            saturating = await scenarios.offline(servers)
            await scenarios.server(servers, saturating, bound_ms)
            await scenarios.curves(servers, saturating)
            await scenarios.overload(servers, saturating)
            await scenarios.sweep(servers)
            if analyzer:
                await scenarios.compare_with_perf_analyzer(analyzer)
        measured.records += shortcuts.measure_shortcuts(
            systems.repository,
            running.inputs,
            gpus=systems.gpus,
            repeats=settings.turns,
            meta=measured.meta,
            report=report,
        )
        return measured
    except RequestFailed as error:
        raise ServerError(f"a request failed while time was measured: {error}") from error
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Scenarios:
    """Each scenario appends its records to `measured`."""

    running: RunningSystems
    settings: ScenarioSettings
    measured: ServingMeasurements
    report: Report

    async def single_stream(self) -> None:
        """Measure latency of one request at a time."""
        systems = self.running.systems
        loads: dict[str, list[LoadResult]] = {name: [] for name in systems}
        for system in systems.values():
            async with system.resumed():
                await closed_loop(system.request.send, concurrency=1, requests=self.settings.stream_requests)
        counted: triton_time.Counts = Counter()
        for turn in range(self.settings.turns):
            self.report(Progress("SingleStream", turn + 1, self.settings.turns))
            for name, system in systems.items():
                async with system.resumed():
                    before = await self._triton_counts(name)
                    loads[name].append(
                        await closed_loop(system.request.send, concurrency=1, requests=self.settings.stream_requests)
                    )
                    counted += await self._triton_counts(name) - before
        joined = {name: LoadResult.joined(turns) for name, turns in loads.items()}
        for percent in PERCENTILES:
            case = f"SingleStream p{percent}"
            baseline = joined[IN_PROCESS].percentile(percent)
            for name, turns in loads.items():
                value = joined[name].percentile(percent)
                meta = {
                    **self.measured.meta,
                    "requests": len(joined[name].latencies_ms),
                    "client_cpu_ms": statistics.median(load.cpu_s / len(load.latencies_ms) for load in turns) * 1e3,
                }
                spread = _spread([load.percentile(percent) for load in turns])
                self.measured.records.append(
                    Record(f"{name}, {case}", value, "ms", f"{IN_PROCESS}, {case}", baseline / value, spread, meta)
                )
        means = {name: statistics.fmean(load.latencies_ms) for name, load in joined.items()}
        self.measured.add_time_split(
            ONE_AT_A_TIME, {"client library": means[CLIENT] - means[TRITON]}, counted, means[TRITON]
        )

    async def offline(self, systems: Mapping[str, ComparedSystem]) -> dict[str, float]:
        """Measure the largest throughput; return each system's sequences a second with one sequence in a request."""
        sends: dict[str, tuple[Send, int, int]] = {}  # how to send, sequences in a request, requests on their way
        for name, system in systems.items():
            sends[name] = (system.request.send, 1, self.settings.outstanding)
            if system.batch_request:
                sends[f"{name} {BATCHES}"] = (
                    system.batch_request.send,
                    MAX_BATCH_SIZE,
                    self.settings.outstanding // MAX_BATCH_SIZE,
                )
        rates: dict[str, list[float]] = {name: [] for name in sends}
        client_ms: dict[str, list[float]] = {name: [] for name in sends}
        server_ms: dict[str, list[float]] = {name: [] for name in sends}
        for turn in range(-1, self.settings.turns):  # the first warms up
            self.report(Progress("Offline", max(turn, 0) + 1, self.settings.turns))
            for name, (send, sequences, outstanding) in sends.items():
                system = systems[name.removesuffix(f" {BATCHES}")]
                async with system.resumed():
                    start_s = process_usage.cpu_s(system.roots)
                    load = await closed_loop(send, concurrency=outstanding, duration_s=self.settings.offline_s)
                    used_s = process_usage.cpu_s(system.roots) - start_s
                if turn >= 0:
                    answered = sequences * len(load.latencies_ms)
                    rates[name].append(sequences * load.rate)
                    client_ms[name].append(load.cpu_s / answered * 1e3)
                    server_ms[name].append(used_s / answered * 1e3)
        medians = {name: statistics.median(values) for name, values in rates.items()}
        # The baseline is the faster of the two ways in process.
        baseline = max((IN_PROCESS, f"{IN_PROCESS} {BATCHES}"), key=lambda name: medians[name])
        for name, value in medians.items():
            roots = systems[name.removesuffix(f" {BATCHES}")].roots
            meta = {
                **self.measured.meta,
                "outstanding": sends[name][2],
                "client_cpu_ms": statistics.median(client_ms[name]),
                "server_cpu_ms": statistics.median(server_ms[name]),
                "server_memory_mib": process_usage.memory_mib(roots),
            }
            self.measured.records.append(
                Record(
                    f"{name}, Offline",
                    value,
                    "sequences/s",
                    f"{baseline}, Offline",
                    value / medians[baseline],
                    _spread(rates[name]),
                    meta,
                )
            )
        return {name: medians[name] for name in systems}

    async def server(
        self, systems: Mapping[str, ComparedSystem], saturating: Mapping[str, float], bound_ms: float
    ) -> None:
        """Search for the largest rate of Poisson arrivals whose 99th percentile stays within the bound."""
        searches = {name: RateSearch(saturating[name], tolerance=self.settings.tolerance) for name in systems}
        step = 0
        while rates := {name: search.rate for name, search in searches.items() if not search.done}:
            step += 1
            loads, _ = await self._open_loads(systems, rates, case=f"Server, step {step}", seed=step)
            for name, load in loads.items():
                searches[name].record(met=load.percentile(99) <= bound_ms)
        case = f"Server, p99 <= {bound_ms:g} ms"
        seconds = self.settings.windows * self.settings.window_s
        meta = {**self.measured.meta, "seconds_each": seconds, "spread": "what the search left open"}
        baseline = searches[IN_PROCESS].best
        for name, search in searches.items():
            # JSON has neither infinity nor NaN: write 0 where no rate met the bound.
            ratio = search.best / baseline if baseline else 0.0
            width = self.settings.tolerance * saturating[name] / search.best if search.best else 0.0
            self.measured.records.append(
                Record(f"{name}, {case}", search.best, "sequences/s", f"{IN_PROCESS}, {case}", ratio, width, meta)
            )

    async def curves(self, systems: Mapping[str, ComparedSystem], saturating: Mapping[str, float]) -> None:
        """Measure latency at shares of each system's own saturating rate."""
        for share in self.settings.shares:
            rates = {name: share * saturating[name] for name in systems}
            case = f"open loop at {share:.0%}"
            loads, counted = await self._open_loads(systems, rates, case=case, seed=0)
            for name, load in loads.items():
                point = Point.of(rates[name], load)
                self.measured.curves.setdefault(name, []).append(point)
                if share == TYPICAL_SHARE and all(map(math.isfinite, load.latencies_ms)):
                    if name == TRITON:
                        self.measured.add_time_split(TYPICAL_LOAD, {}, counted, statistics.fmean(load.latencies_ms))
                    case = f"at {share:.0%} of its saturating rate"
                    meta = {**self.measured.meta, "requests": len(load.latencies_ms), "offered": rates[name]}
                    for percent, value in ((50, point.p50_ms), (99, point.p99_ms)):
                        self.measured.records.append(
                            Record(
                                f"{name}, p{percent} {case}",
                                value,
                                "ms",
                                f"{name}, p50 {case}",
                                point.p50_ms / value,
                                0.0,
                                meta,
                            )
                        )

    async def overload(self, systems: Mapping[str, ComparedSystem], saturating: Mapping[str, float]) -> None:
        """Measure answers a second within the deadline when requests arrive faster than the system can compute."""
        seconds = self.settings.windows * self.settings.window_s
        for name, system in systems.items():
            rate = OVERLOAD * saturating[name]
            self.report(Progress("overload", detail=f"{name} at {rate:.3g} requests/s"))
            async with system.resumed():
                load = await open_loop(system.deadline_request.send, poisson_arrivals(rate, seconds, seed=0))
            in_time = sum(latency <= DEADLINE_S * 1e3 for latency in load.latencies_ms) / seconds
            case = f"within {DEADLINE_S:g} s at {OVERLOAD:.0%} of its saturating rate"
            meta = {**self.measured.meta, "offered": rate, "seconds": seconds}
            ratio = in_time / saturating[name]
            self.measured.records.append(
                Record(f"{name}, {case}", in_time, "sequences/s", f"{name}, Offline", ratio, 0.0, meta)
            )

    async def _open_loads(
        self, systems: Mapping[str, ComparedSystem], rates: Mapping[str, float], *, case: str, seed: int
    ) -> tuple[dict[str, LoadResult], triton_time.Counts]:
        """Send Poisson arrivals at each system's rate, window by window in turns, with Triton's counters."""
        windows: dict[str, list[LoadResult]] = {name: [] for name in rates}
        counted: triton_time.Counts = Counter()
        for window in range(self.settings.windows):
            for name, rate in rates.items():
                self.report(
                    Progress(case, window + 1, self.settings.windows, detail=f"{name} at {rate:.3g} requests/s")
                )
                # At a very low rate no request may arrive: then send one at the start.
                arrivals_s = poisson_arrivals(rate, self.settings.window_s, seed * self.settings.windows + window) or [
                    0.0
                ]
                async with systems[name].resumed():
                    before = await self._triton_counts(name)
                    windows[name].append(await open_loop(systems[name].request.send, arrivals_s))
                    counted += await self._triton_counts(name) - before
        return {name: LoadResult.joined(loads) for name, loads in windows.items()}, counted

    async def _triton_counts(self, measured: str) -> triton_time.Counts:
        """Return Triton's counters, which takes a second; none while another system is measured."""
        return await self.running.triton_counts() if measured == TRITON else Counter()

    async def sweep(self, systems: Mapping[str, ComparedSystem]) -> None:
        """Measure closed loops with more and more concurrent requests."""
        for concurrency in self.settings.concurrencies:
            for name, system in systems.items():
                if name == IN_PROCESS and concurrency > 1:
                    continue  # in process, requests are computed one at a time
                self.report(Progress(f"{concurrency} at once", detail=name))
                async with system.resumed():
                    load = await closed_loop(
                        system.request.send, concurrency=concurrency, duration_s=self.settings.window_s
                    )
                self.measured.sweep.setdefault(name, []).append(Point.of(concurrency, load))
        for name, points in self.measured.sweep.items():
            for point in points:
                meta = {**self.measured.meta, "p50_ms": point.p50_ms, "p99_ms": point.p99_ms}
                self.measured.records.append(
                    Record(
                        f"{name}, {point.offered:g} at once",
                        point.rate,
                        "sequences/s",
                        f"{name}, {points[0].offered:g} at once",
                        point.rate / points[0].rate,
                        0.0,
                        meta,
                    )
                )

    async def compare_with_perf_analyzer(self, analyzer: Path) -> None:
        """Measure Triton's first and last point of the sweep again, with perf_analyzer and with our load generator."""
        for concurrency in (self.settings.concurrencies[0], self.settings.concurrencies[-1]):
            self.report(Progress(f"{concurrency} at once", detail="perf_analyzer"))
            send = self.running.systems[TRITON].request.send
            own = await closed_loop(send, concurrency=concurrency, duration_s=2 * self.settings.window_s)
            rate = await perf_analyzer.rate(
                analyzer,
                self.running.url,
                self.running.inputs,
                concurrency=concurrency,
                window_s=2 * self.settings.window_s,
            )
            case = f"{concurrency} at once"
            baseline = f"{TRITON}, {case}, beside perf_analyzer"
            for name, value in ((baseline, own.rate), (f"perf_analyzer, {case}", rate)):
                self.measured.records.append(
                    Record(name, value, "sequences/s", baseline, value / own.rate, 0.0, dict(self.measured.meta))
                )


def _spread(values: Sequence[float]) -> float:
    low, median, high = statistics.quantiles(values, n=4)
    return (high - low) / median
