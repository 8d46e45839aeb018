"""The records that every benchmark writes, and the table that it prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from homomorph_bench.timing import Timing
from homomorph_client.files import write_text

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Record:
    """One row of a benchmark's table."""

    name: str
    value: float
    """Median."""
    unit: str
    baseline: str
    """Name of the record that this one is compared with."""
    ratio: float
    """Speed relative to the baseline: above 1 is faster."""
    spread: float
    """Distance between the quartiles, divided by the median."""
    meta: dict[str, Any]
    """Settings and machine of the measurement. In a file, shared values are in the first record only."""


def compared(
    timings: Mapping[str, Timing], case: str, *, baseline: str, meta: Callable[[str], dict[str, Any]]
) -> list[Record]:
    """Return a record for each of the timings of one case, compared with the baseline among them.

    Args:
        timings: by name, including the baseline's.
        case: name of the case.
        baseline: name of the timing that the others are compared with.
        meta: returns the `meta` of a named timing.
    """
    return [
        Record(
            name=f"{name}, {case}",
            value=timing.median_ms,
            unit="ms",
            baseline=f"{baseline}, {case}",
            ratio=timings[baseline].median_ms / timing.median_ms,
            spread=timing.spread,
            meta=meta(name),
        )
        for name, timing in timings.items()
    ]


def write(records: Sequence[Record], folder: Path) -> Path:
    """Write `results.json` with one record a line into the folder, which is created if needed; return its path.

    Values that are the same in the `meta` of all records, such as the machine and the versions, are written once: in
    the first record, as `meta["environment"]`.
    """
    plain = [dataclasses.asdict(record) for record in records]
    shared = {
        name: value
        for name, value in plain[0]["meta"].items()
        if all(name in record["meta"] and record["meta"][name] == value for record in plain)
    }
    for record in plain:
        record["meta"] = {name: value for name, value in record["meta"].items() if name not in shared}
        record |= {name: float(f"{record[name]:.8g}") for name in ("value", "ratio", "spread")}
    plain[0]["meta"]["environment"] = shared
    path = folder / RESULTS_FILE
    write_text(path, "[\n" + ",\n".join(json.dumps(record) for record in plain) + "\n]\n")
    return path


def read(folder: Path) -> list[Record]:
    """Read `results.json` of a folder."""
    return [Record(**record) for record in json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))]


def table(records: Sequence[Record], title: str) -> Table:
    """Lay the records out for a terminal."""
    result = Table(title=title)
    result.add_column("measured")
    baselines = {record.baseline.partition(",")[0] for record in records}
    for heading in ("median", "spread", f"faster than {next(iter(baselines))}" if len(baselines) == 1 else "faster"):
        result.add_column(heading, justify="right")
    if len(baselines) > 1:
        result.add_column("than")
    for record in records:
        row = [record.name, f"{record.value:.4g} {record.unit}", f"{record.spread:.0%}", f"{record.ratio:.2f}"]
        result.add_row(*row, *([record.baseline.partition(",")[0]] if len(baselines) > 1 else []))
    return result
