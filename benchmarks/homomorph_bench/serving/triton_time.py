"""Split a request's time into its parts within Triton, from the server's own statistics."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from homomorph_bench.serving.load_generator import RequestFailed
from homomorph_client.names import MORPH

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
"""Parts of a model's time in Triton's statistics, in their order."""
NETWORK = "network"
SCHEDULING = "scheduling"

Counts = Counter[tuple[str, str]]
"""By model and counter: `requests`, `executions` and, in nanoseconds, `total` and `PARTS`."""

_SETTLED_S = 0.4
"""Counters must stay the same for this long: Triton, and our own models, answer a request before they count it."""
_OWN_QUEUE_METRIC = re.compile(r'^homomorph_(queue|compute)_duration_us{model="(\w+)".*} (\S+)$', re.MULTILINE)
"""Times in the own queue of a model. Triton's own statistics end where such a model accepts a request."""


async def read_counts(url: str, metrics_url: str) -> Counts:
    """Return Triton's counters since its start; waits until no counter changes any more.

    Args:
        url: host:port of its gRPC.
        metrics_url: host:port of its metrics.

    Raises:
        RequestFailed: the statistics cannot be read.
    """
    try:
        async with InferenceServerClient(url) as client:
            counted = await _read_counts_once(client, metrics_url)
            while True:
                await asyncio.sleep(_SETTLED_S)
                before, counted = counted, await _read_counts_once(client, metrics_url)
                if counted == before:
                    return counted
    except (InferenceServerException, OSError) as error:
        raise RequestFailed(f"Triton's statistics: {error}") from error


async def _read_counts_once(client: InferenceServerClient, metrics_url: str) -> Counts:
    answer: dict[str, Any] = await client.get_inference_statistics(as_json=True)
    counted: Counts = Counter()
    for model in answer["model_stats"]:
        stats, name = model.get("inference_stats", {}), model["name"]
        # protobuf's JSON writes 64-bit numbers as strings and leaves zeros out.
        counted[name, "requests"] = int(stats.get("success", {}).get("count", 0))
        counted[name, "executions"] = int(model.get("execution_count", 0))
        counted[name, "total"] = int(stats.get("success", {}).get("ns", 0))
        for part in PARTS:
            counted[name, part] = int(stats.get(part, {}).get("ns", 0))
    with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=10) as metrics:
        text = metrics.read().decode()
    for part, name, duration_us in _OWN_QUEUE_METRIC.findall(text):
        counted[name, {"queue": "queue", "compute": "compute_infer"}[part]] += round(float(duration_us) * 1000)
    return counted


def split_request_time(counted: Counts, mean_ms: float) -> dict[str, float]:
    """Divide the time of the mean request to `morph` into its parts.

    Args:
        counted: Triton's counters over the measured time, a difference of two `read_counts`.
        mean_ms: the mean latency at the client, in milliseconds.

    Returns:
        Milliseconds by part: the network, with gRPC on both sides; every part of every model that computed; and
        scheduling, Triton's own work between the models. The parts add up to `mean_ms`.
    """
    requests = counted[MORPH, "requests"]
    total_ms = counted[MORPH, "total"] / requests / 1e6
    # The parts of an ensemble repeat those of its members.
    members = [name for name, what in counted if what == "executions" and counted[name, what] and name != MORPH]
    parts_ms = {f"{name} {part}": counted[name, part] / requests / 1e6 for name in members or [MORPH] for part in PARTS}
    parts_ms[SCHEDULING] = max(0.0, total_ms - sum(parts_ms.values()))
    # Triton counts output time, and its own work, after it has answered: time beyond the client's is not part of it.
    beyond_ms = max(0.0, total_ms - mean_ms)
    for part in [*(part for part in parts_ms if part.endswith(" compute_output")), SCHEDULING]:
        taken_ms = min(beyond_ms, parts_ms[part])
        parts_ms[part] -= taken_ms
        beyond_ms -= taken_ms
    # Models that ran at the same time, and what is still beyond the client's time, count in proportion.
    within_ms = min(mean_ms, total_ms)
    counted_ms = sum(parts_ms.values())
    shrink = within_ms / counted_ms if counted_ms > within_ms else 1.0
    return {NETWORK: mean_ms - within_ms, **{part: shrink * value_ms for part, value_ms in parts_ms.items()}}


def batch_sizes(counted: Counts) -> dict[str, float]:
    """Return the mean number of requests in one execution of each model."""
    executed = {name: counted[name, what] for name, what in counted if what == "executions" and counted[name, what]}
    return {name: counted[name, "requests"] / executions for name, executions in executed.items()}
