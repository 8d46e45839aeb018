"""Summarise the rows of `homomorph bench kernel` in a few figures and a picture."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from homomorph_bench.kernel import BASELINE, CALL, COPY, EINSUM, LOOP, ONE_HOT, OPERATOR, cache_bytes
from homomorph_bench.results import Record

PICTURE_FILE = "kernel.png"
_MEMORY_OF_OPERATOR = f"memory of {OPERATOR}"
_SMALL_CALL_SHARE = 0.2
"""A case counts as large if the fixed cost of a call is less than this share of its time."""


def summarise(records: Sequence[Record]) -> dict[str, float]:
    """Return the figures that have targets, by name; figures that were not measured are left out."""
    figures: dict[str, float] = {}
    timed = [timings for timings in _by_case(records).values() if OPERATOR in timings]
    figures["against the best of three: slowest case"] = min(
        min(timings[name].value for name in (BASELINE, EINSUM, LOOP)) / timings[OPERATOR].value for timings in timed
    )
    baseline = [timings[OPERATOR].ratio for timings in timed]
    figures[f"against {BASELINE}: geometric mean"] = statistics.geometric_mean(baseline)
    figures[f"against {BASELINE}: slowest case"] = min(baseline)
    name = "one-hot against dense, per ratio of bytes"
    figures |= _mean_and_range(name, [_per_ratio_of_bytes(timings) for timings in timed])
    large = [timings for timings in timed if _call_share(timings) < _SMALL_CALL_SHARE]
    if large:
        figures |= _mean_and_range(
            f"{name}, where a call is less than {_SMALL_CALL_SHARE:.0%} of it",
            [_per_ratio_of_bytes(timings) for timings in large],
        )
    figures |= _mean_and_range("a call's share of one-hot", [_call_share(timings) for timings in timed])
    memory_cases = [timings for timings in _by_case(records).values() if _MEMORY_OF_OPERATOR in timings]
    if memory_cases:
        copies = [record for record in records if record.name.startswith(f"memory of {COPY} of ")]
        figures["MiB of cache, measured"] = cache_bytes(copies) / 2**20
        for name in (OPERATOR, ONE_HOT):
            shares = [timings[f"memory of {name}"].ratio for timings in memory_cases]
            figures[f"share of {COPY}'s bandwidth beyond the cache, {name}: mean"] = statistics.fmean(shares)
            figures[f"share of {COPY}'s bandwidth beyond the cache, {name}: slowest case"] = min(shares)
    return figures


def _call_share(timings: Mapping[str, Record]) -> float:
    """Return the fixed cost of a call as a share of one-hot's time."""
    return timings[CALL].value / timings[ONE_HOT].value


def _per_ratio_of_bytes(timings: Mapping[str, Record]) -> float:
    return float(timings[ONE_HOT].ratio / timings[ONE_HOT].meta["ratio_of_bytes"])


def _mean_and_range(name: str, values: Sequence[float]) -> dict[str, float]:
    return {
        f"{name}: geometric mean": statistics.geometric_mean(values),
        f"{name}: least": min(values),
        f"{name}: most": max(values),
    }


def draw(records: Sequence[Record], folder: Path) -> Path:
    """Draw bandwidths, and speed-ups over torch's fastest candidate, into `kernel.png`; return its path."""
    from matplotlib.figure import Figure

    cases = {case: timings for case, timings in _by_case(records).items() if OPERATOR in timings}
    columns = sorted({_sizes(timings) for timings in cases.values()})
    rows = sorted({_dtype_and_layout(timings) for timings in cases.values()})
    speed_up = [[float("nan")] * len(columns) for _ in rows]
    for timings in cases.values():
        fastest = min(timings[name].value for name in (BASELINE, EINSUM, LOOP))
        speed_up[rows.index(_dtype_and_layout(timings))][columns.index(_sizes(timings))] = (
            fastest / timings[OPERATOR].value
        )
    memory_cases = [timings for timings in _by_case(records).values() if _MEMORY_OF_OPERATOR in timings]

    figure = Figure(figsize=(max(8, 2 + 0.5 * len(columns)), 3.2 + 0.4 * len(rows) + (3.6 if memory_cases else 0)))
    grid = figure.subplots(
        2 if memory_cases else 1, 1, squeeze=False, height_ratios=[len(rows) + 1, 6] if memory_cases else [1]
    )
    heat = grid[0, 0]
    heat.imshow(speed_up, vmin=0, vmax=4, cmap="RdYlGn", aspect="auto")
    heat.set_xticks(range(len(columns)), [f"{'x'.join(map(str, f))}\nK={k} S={s}" for f, k, s in columns])
    heat.tick_params(axis="x", labelrotation=90, labelsize=7)
    heat.set_yticks(range(len(rows)), [" ".join(row) for row in rows])
    for y, values in enumerate(speed_up):
        for x, value in enumerate(values):
            heat.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7)
    heat.set_title("times as fast as the fastest of baddbmm, einsum and the loop over branches")
    if memory_cases:
        bars = grid[1, 0]
        for offset, name in enumerate((OPERATOR, ONE_HOT, COPY)):
            heights = [timings[f"memory of {name}"].meta["gigabytes_per_second"] for timings in memory_cases]
            bars.bar([x + 0.27 * offset for x in range(len(memory_cases))], heights, 0.25, label=name)
        labels = [timings[_MEMORY_OF_OPERATOR].name.partition(", ")[2] for timings in memory_cases]
        bars.set_xticks([x + 0.27 for x in range(len(memory_cases))], labels, rotation=90, fontsize=7)
        bars.set_ylabel("GB/s")
        bars.set_title("bandwidth beyond the cache")
        bars.legend()
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PICTURE_FILE
    figure.savefig(path, dpi=110)
    return path


def _by_case(records: Sequence[Record]) -> Mapping[str, dict[str, Record]]:
    """Return the records by case and candidate."""
    cases: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        name, _, case = record.name.rpartition(", ")
        cases[case][name] = record
    return cases


def _sizes(timings: Mapping[str, Record]) -> tuple[tuple[int, ...], int, int]:
    case = timings[OPERATOR].meta["case"]
    return tuple(case["features"]), case["branches"], case["steps"]


def _dtype_and_layout(timings: Mapping[str, Record]) -> tuple[str, str]:
    case = timings[OPERATOR].meta["case"]
    return case["dtype"], case["layout"]
