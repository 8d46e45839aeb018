"""Draw each part's share of a sequence's time, and its speed beside that of a matrix product."""

from __future__ import annotations

from pathlib import Path

from homomorph_bench.model import ModelMeasurements

PICTURE_FILE = "model.png"


def draw(measured: ModelMeasurements, folder: Path) -> Path:
    """Draw the times and speeds into `model.png`; return its path."""
    from matplotlib.figure import Figure

    names = list(measured.parts)
    parts = list(measured.gmac)
    figure = Figure(figsize=(10, 1.8 + 0.9 * len(names)), layout="constrained")
    times, rates = figure.subplots(1, 2)
    left = [0.0] * len(names)
    for part in parts:
        widths = [measured.parts[name][part].median_ms for name in names]
        times.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    times.set_xlabel("milliseconds of one sequence")
    times.invert_yaxis()
    times.legend()
    height = 0.8 / len(parts)
    for place, part in enumerate(parts):
        values = [measured.rate(name, part) for name in names]
        rates.barh([row + (place - 1) * height for row in range(len(names))], values, height=height, label=part)
    for precision in measured.matmul:
        rate = measured.matmul_rate(precision)
        rates.axvline(rate, color="grey", linestyle="--")
        rates.text(rate, -0.6, f"matmul {precision}", rotation=90, va="top", ha="right", fontsize=7)
    rates.set_yticks(range(len(names)), names)
    rates.invert_yaxis()
    rates.set_xlabel("10^9 multiply-adds a second")
    rates.legend()
    path = folder / PICTURE_FILE
    figure.savefig(path, dpi=150)
    return path
