"""Prometheus metrics of what Triton cannot count: requests that are answered after `execute` has returned."""

from __future__ import annotations

import threading

import triton_python_backend_utils as pb_utils

REPORT_INTERVAL_S = 0.2
"""Time between updates of the metrics in the server."""


class Metrics:
    """Adds up counts from any thread, and passes the sums to the server now and then."""

    def __init__(self, model: str) -> None:
        """Register the metrics of the model of that name."""
        pictures = pb_utils.MetricFamily(
            name="homomorph_pictures",
            description="Pictures of morphs, by whether their features were in the cache",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        queue, compute = (
            pb_utils.MetricFamily(
                name=f"homomorph_{part}_duration_us",
                description=f"Microseconds that requests {what}, which Triton does not count",
                kind=pb_utils.MetricFamily.COUNTER,
            )
            for part, what in (("queue", "waited until they were begun"), ("compute", "took from then on"))
        )
        self._families = pictures, queue, compute  # a family must outlive its metrics
        self._metrics = {
            "known": (pictures.Metric(labels={"cached": "yes"}), 1),
            "encoded": (pictures.Metric(labels={"cached": "no"}), 1),
            "queue_s": (queue.Metric(labels={"model": model}), 1e6),
            "compute_s": (compute.Metric(labels={"model": model}), 1e6),
        }
        self._changed = threading.Condition()  # its lock guards everything below
        self._sums = dict.fromkeys(self._metrics, 0.0)
        self._closed = False
        self._reporter = threading.Thread(target=self._report, daemon=True)
        self._reporter.start()

    def add(self, name: str, value: float) -> None:
        """Add to one of `known`, `encoded` (pictures), `queue_s` and `compute_s` (seconds)."""
        with self._changed:
            self._sums[name] += value
            self._changed.notify_all()

    def close(self) -> None:
        """Pass the last sums on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._reporter.join()

    def _report(self) -> None:
        """Pass the sums to the server; the body of a thread, because this takes longer than a count is worth."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or any(self._sums.values()))
                self._changed.wait_for(lambda: self._closed, timeout=REPORT_INTERVAL_S)
                sums, self._sums = self._sums, dict.fromkeys(self._metrics, 0.0)
            for name, value in sums.items():
                if value:
                    metric, unit = self._metrics[name]
                    metric.increment(value * unit)
