"""Prometheus metrics of requests that are answered after `execute` has returned, which Triton does not count."""

from __future__ import annotations

import threading

import triton_python_backend_utils as pb_utils

REPORT_INTERVAL_S = 0.2
"""Time between updates of the metrics in the server."""


class Metrics:
    """Counters that any thread may add to; a thread of their own passes the sums to the server."""

    def __init__(self, model: str, engine: str) -> None:
        """Register the metrics of a model with the given name, whose networks an engine computes."""
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
            "compute_s": (compute.Metric(labels={"model": model, "engine": engine}), 1e6),
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
        """Send the last sums to the server and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._reporter.join()

    def _report(self) -> None:
        """Send the sums to the server until closed; runs in a thread, because a call to the server is slow."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or any(self._sums.values()))
                self._changed.wait_for(lambda: self._closed, timeout=REPORT_INTERVAL_S)
                sums, self._sums = self._sums, dict.fromkeys(self._metrics, 0.0)
            for name, value in sums.items():
                if value:
                    metric, unit = self._metrics[name]
                    metric.increment(value * unit)
