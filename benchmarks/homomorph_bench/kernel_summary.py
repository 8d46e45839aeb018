"""What the many rows of `homomorph bench kernel` come to: a few figures, and a picture."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from homomorph_bench.kernel import BASELINE, COPY, EINSUM, LOOP, ONE_HOT, OPERATOR
from homomorph_bench.results import Record

PICTURE_FILE = "kernel.png"


def summarise(records: Sequence[Record]) -> dict[str, float]:
    """Return the figures that the targets are set for, by name; only those that were measured."""
    operator, baseline, one_hot, memory = [], [], [], []
    for timings in _by_case(records).values():
        fastest = min(timings[name].value for name in (BASELINE, EINSUM, LOOP))
        operator.append(fastest / timings[OPERATOR].value)
        baseline.append(timings[OPERATOR].ratio)
        one_hot.append(timings[ONE_HOT].ratio / timings[ONE_HOT].meta["ratio_of_bytes"])
        if f"memory of {OPERATOR}" in timings:
            memory.append(timings[f"memory of {OPERATOR}"].ratio)
    figures = {
        "against the best of three: slowest case": min(operator),
        f"against {BASELINE}: geometric mean": statistics.geometric_mean(baseline),
        f"against {BASELINE}: slowest case": min(baseline),
        "one-hot against dense, per ratio of bytes: geometric mean": statistics.geometric_mean(one_hot),
        "one-hot against dense, per ratio of bytes: slowest case": min(one_hot),
        "one-hot against dense, per ratio of bytes: fastest case": max(one_hot),
    }
    if memory:
        figures[f"share of {COPY}'s bandwidth beyond the cache: mean"] = statistics.fmean(memory)
        figures[f"share of {COPY}'s bandwidth beyond the cache: slowest case"] = min(memory)
    return figures


def draw(records: Sequence[Record], folder: Path) -> Path:
    """Draw speed-ups against the fastest of torch's ways, and bandwidths, into `kernel.png`; return its path."""
    from matplotlib.figure import Figure

    cases = _by_case(records)
    columns = sorted({_sizes(timings) for timings in cases.values()})
    rows = sorted({_kind(timings) for timings in cases.values()})
    speed_up = [[float("nan")] * len(columns) for _ in rows]
    for timings in cases.values():
        fastest = min(timings[name].value for name in (BASELINE, EINSUM, LOOP))
        speed_up[rows.index(_kind(timings))][columns.index(_sizes(timings))] = fastest / timings[OPERATOR].value
    beyond = [timings for timings in cases.values() if f"memory of {OPERATOR}" in timings]

    figure = Figure(figsize=(max(8, 2 + 0.5 * len(columns)), 3.2 + 0.4 * len(rows) + (3.6 if beyond else 0)))
    grid = figure.subplots(2 if beyond else 1, 1, squeeze=False, height_ratios=[len(rows) + 1, 6] if beyond else [1])
    heat = grid[0, 0]
    heat.imshow(speed_up, vmin=0, vmax=4, cmap="RdYlGn", aspect="auto")
    heat.set_xticks(range(len(columns)), [f"{'x'.join(map(str, f))}\nK={k} S={s}" for f, k, s in columns])
    heat.tick_params(axis="x", labelrotation=90, labelsize=7)
    heat.set_yticks(range(len(rows)), [" ".join(row) for row in rows])
    for y, values in enumerate(speed_up):
        for x, value in enumerate(values):
            heat.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7)
    heat.set_title("times as fast as the fastest of baddbmm, einsum and the loop over branches")
    if beyond:
        bars = grid[1, 0]
        for offset, name in enumerate((OPERATOR, ONE_HOT, COPY)):
            heights = [timings[f"memory of {name}"].meta["gigabytes_per_second"] for timings in beyond]
            bars.bar([x + 0.27 * offset for x in range(len(beyond))], heights, 0.25, label=name)
        labels = [timings[OPERATOR].name.partition(", ")[2] for timings in beyond]
        bars.set_xticks([x + 0.27 for x in range(len(beyond))], labels, rotation=90, fontsize=7)
        bars.set_ylabel("GB/s")
        bars.set_title("bandwidth beyond the last-level cache")
        bars.legend()
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PICTURE_FILE
    figure.savefig(path, dpi=110)
    return path


def _by_case(records: Sequence[Record]) -> Mapping[str, dict[str, Record]]:
    """Return the records by case, and there by what was timed."""
    cases: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        name, _, case = record.name.rpartition(", ")
        cases[case][name] = record
    return cases


def _sizes(timings: Mapping[str, Record]) -> tuple[tuple[int, ...], int, int]:
    case = timings[OPERATOR].meta["case"]
    return tuple(case["features"]), case["branches"], case["steps"]


def _kind(timings: Mapping[str, Record]) -> tuple[str, str]:
    case = timings[OPERATOR].meta["case"]
    return case["dtype"], case["layout"]
