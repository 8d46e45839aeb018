"""`report.html`: the figures and the curves in one self-contained file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import jinja2
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homomorph.evaluation.plots import as_svg
from homomorph_bench.serving.measurements import Point, ServingMeasurements
from homomorph_client.files import write_text

REPORT_FILE = "report.html"


def write_report(measured: ServingMeasurements, folder: Path) -> Path:
    """Write `report.html` into an existing folder; return its path."""
    template = resources.files("homomorph_bench.serving").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            meta=measured.meta,
            meta_text=json.dumps(measured.meta, indent=2),
            records=measured.records,
            curves=_draw_curves(measured.curves, "requests a second"),
            sweep=_draw_curves(measured.sweep, "sequences a second, from one to many at once"),
            time_split=_draw_time_split(measured.time_split_ms),
        )
    )
    path = folder / REPORT_FILE
    write_text(path, page)
    return path


def _draw_curves(systems: Mapping[str, Sequence[Point]], label: str) -> str:
    """Draw latency over throughput: the median solid, the 99th percentile dashed."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(systems.items()):
        rates = [point.rate for point in points]
        colour = f"C{number}"
        axes.plot(rates, _finite([point.p50_ms for point in points]), color=colour, marker="o", label=name)
        axes.plot(rates, _finite([point.p99_ms for point in points]), color=colour, marker="o", linestyle="--")
    axes.set(xlabel=label, ylabel="milliseconds: median, and dashed p99", yscale="log")
    axes.set_xlim(left=0)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    return as_svg(figure)


def _draw_time_split(cases: Mapping[str, Mapping[str, float]]) -> str:
    """Draw each case as one bar, divided into its parts."""
    figure = Figure(figsize=(14, 1.2 + 1.1 * len(cases)), layout="constrained")
    axes: Axes = figure.subplots()
    parts = list(dict.fromkeys(part for case in cases.values() for part in case))
    for number, part in enumerate(parts):
        widths = [max(0.0, case.get(part, 0.0)) for case in cases.values()]
        left = [sum(max(0.0, case.get(other, 0.0)) for other in parts[:number]) for case in cases.values()]
        axes.barh(list(cases), widths, left=left, label=part, color=colormaps["tab20"](number % 20))
    axes.set_xlabel("milliseconds")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return as_svg(figure)


def _finite(values: Sequence[float]) -> list[float]:
    """Replace infinite values, which mean failed requests, by NaN, which leaves a gap in a plot."""
    return [value if math.isfinite(value) else math.nan for value in values]
