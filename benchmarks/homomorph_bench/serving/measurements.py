"""Everything that `bench serving` measures: records for the table, and curves and parts of the time for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from homomorph_bench.results import Record
from homomorph_bench.serving import triton_time
from homomorph_bench.serving.load_generator import LoadResult
from homomorph_bench.serving.systems import TRITON


@dataclass(frozen=True)
class Point:
    """A system's rate and latencies under one load."""

    offered: float
    """Requests a second in an open loop; concurrent requests in a closed loop."""
    rate: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, offered: float, load: LoadResult) -> Point:
        """Return the point of a load."""
        return cls(offered, load.rate, load.percentile(50), load.percentile(99))


@dataclass
class ServingMeasurements:
    """All measurements: the records hold the figures, the other fields are drawn in the report."""

    records: list[Record] = field(default_factory=list)
    sweep: dict[str, list[Point]] = field(default_factory=dict)
    """Closed loops, by system."""
    curves: dict[str, list[Point]] = field(default_factory=dict)
    """Open loops, by system."""
    time_split_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Parts of the time of Triton's mean request, in milliseconds by load and part."""
    meta: dict[str, Any] = field(default_factory=dict)

    def add_time_split(
        self, case: str, outside_ms: Mapping[str, float], counted: triton_time.Counts, mean_ms: float
    ) -> None:
        """Add the parts of the mean request's time to Triton.

        Args:
            case: name of the load.
            outside_ms: parts beside `mean_ms`, in milliseconds by name.
            counted: Triton's counters over this load.
            mean_ms: the mean latency of the raw request.
        """
        parts_ms = {**outside_ms, **triton_time.split_request_time(counted, mean_ms)}
        self.time_split_ms[case] = parts_ms
        meta = {**self.meta, "batch_sizes": triton_time.batch_sizes(counted)}
        self.records += [
            Record(f"{part}, {case}", value, "ms", f"{TRITON}, {case}", mean_ms / value, 0.0, meta)
            for part, value in {TRITON: mean_ms, **parts_ms}.items()
            if value > 0
        ]
