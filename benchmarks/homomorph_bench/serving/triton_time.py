"""Where a request's time goes within Triton, from the statistics that the server itself keeps."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from homomorph_bench.serving.load_generator import RequestFailed

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
"""What Triton's statistics divide a model's time into, in their order."""
NETWORK = "network"
SCHEDULING = "scheduling"

Counts = Counter[tuple[str, str]]
"""By model and what was counted: `requests`, `executions` and, in nanoseconds, `total` and `PARTS`."""


_SETTLED_S = 0.4
"""For so long nothing may have been counted: Triton answers a request before it counts it, as do models of ours."""
_OWN = re.compile(r'^homomorph_(queue|compute)_duration_us{model="(\w+)".*} (\S+)$', re.MULTILINE)
"""What a model with a queue of its own counts, since Triton's account ends where it takes a request on."""


async def counts(url: str, metrics_url: str) -> Counts:
    """Return what Triton has counted since it started, once nothing on its way is counted any more.

    Args:
        url: host:port of its gRPC.
        metrics_url: host:port of its metrics.

    Raises:
        RequestFailed: it does not say.
    """
    try:
        async with InferenceServerClient(url) as client:
            counted = await _counts(client, metrics_url)
            while True:
                await asyncio.sleep(_SETTLED_S)
                before, counted = counted, await _counts(client, metrics_url)
                if counted == before:
                    return counted
    except (InferenceServerException, OSError) as error:
        raise RequestFailed(f"Triton's statistics: {error}") from error


async def _counts(client: InferenceServerClient, metrics_url: str) -> Counts:
    answer: dict[str, Any] = await client.get_inference_statistics(as_json=True)
    counted: Counts = Counter()
    for model in answer["model_stats"]:
        stats, name = model.get("inference_stats", {}), model["name"]
        # In JSON, numbers of 64 bits are strings, and zeros are left out.
        counted[name, "requests"] = int(stats.get("success", {}).get("count", 0))
        counted[name, "executions"] = int(model.get("execution_count", 0))
        counted[name, "total"] = int(stats.get("success", {}).get("ns", 0))
        for part in PARTS:
            counted[name, part] = int(stats.get(part, {}).get("ns", 0))
    with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=10) as metrics:
        text = metrics.read().decode()
    for part, name, duration_us in _OWN.findall(text):
        counted[name, {"queue": "queue", "compute": "compute_infer"}[part]] += round(float(duration_us) * 1000)
    return counted


def split(counted: Counts, mean_ms: float, *, model: str = "morph") -> dict[str, float]:
    """Divide the mean request's time.

    Args:
        counted: what Triton counted meanwhile, a difference of two `counts`.
        mean_ms: the mean latency that the client saw, in milliseconds.
        model: what was asked for: an ensemble, or a model that computes by itself.

    Returns:
        Milliseconds by part: the network, with gRPC on both sides; every part of every model that computed; and
        scheduling, which is what Triton does between them. They make up `mean_ms`.
    """
    requests = counted[model, "requests"]
    total_ms = counted[model, "total"] / requests / 1e6
    # An ensemble's own parts repeat its members'.
    members = [name for name, what in counted if what == "executions" and counted[name, what] and name != model]
    parts_ms = {f"{name} {part}": counted[name, part] / requests / 1e6 for name in members or [model] for part in PARTS}
    scheduling_ms = total_ms - sum(parts_ms.values())
    # Triton goes on counting an output after it has answered: what exceeds the client's wait was no part of that.
    overlap_ms = max(0.0, total_ms - mean_ms)
    for part in [part for part in parts_ms if part.endswith(" compute_output")]:
        taken_ms = min(overlap_ms, parts_ms[part])
        parts_ms[part] -= taken_ms
        overlap_ms -= taken_ms
    return {NETWORK: max(0.0, mean_ms - total_ms), SCHEDULING: scheduling_ms - overlap_ms, **parts_ms}


def batch_sizes(counted: Counts) -> dict[str, float]:
    """Return how many requests one execution of each model served, on average."""
    executed = {name: counted[name, what] for name, what in counted if what == "executions" and counted[name, what]}
    return {name: counted[name, "requests"] / executions for name, executions in executed.items()}
