"""Measure the time from a slider's movement to the new frame on the screen: python tests/ui/slider_time.py out/ui

The processor time hardly depends on what else the machine does; the other times do.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from screenshot import DESKTOP, started

from homomorph.environment import environment
from homomorph_bench.results import Record, write

MOVEMENTS = 100
GROUPS = ("mouth", "hair-colour", "glasses", "skin")
RECORD = """() => {
    window.frames_ms = [];
    let moved = 0;
    document.addEventListener("input", (event) => (moved = event.timeStamp), true);
    // The page writes the parts of a frame's time once it is drawn. The task after the next repaint sees it shown.
    const drawn = () => requestAnimationFrame(() => setTimeout(() => {
        const parts = [...document.querySelectorAll("#parts span")].map((part) => part.textContent.match(/\\d+$/)[0]);
        window.frames_ms.push([performance.now() - moved, ...parts.map(Number)]);
    }));
    new MutationObserver(drawn).observe(document.getElementById("parts"), { childList: true });
}"""


def main() -> None:
    """Drag sliders of the page by the mouse; print how long each new frame took, and write `results.json`."""
    with started() as (browser, address, process):
        page = browser.new_page(viewport=DESKTOP)
        page.goto(address)
        page.locator("#times").wait_for()
        page.locator("#result:not(.busy)").wait_for()
        page.evaluate(RECORD)
        before_s = processor_s(process)
        places = itertools.cycle(index / 24 for index in (1, 4, 8, 6, 11, 9, 3))
        for group in GROUPS:
            drag(page, f"#slider-{group}", places, MOVEMENTS // len(GROUPS))
        columns = list(zip(*page.evaluate("window.frames_ms"), strict=True))
        used_s = processor_s(process) - before_s
    measured = records(columns, processor_ms=1000 * used_s / len(columns[0]))
    for record in measured:
        print(f"{record.name}: {record.value:.0f} ms")
    print(write(measured, Path(sys.argv[1])))


def records(columns: Sequence[Sequence[float]], *, processor_ms: float) -> list[Record]:
    """Return a record for each part of a frame's time, after the whole.

    Args:
        columns: milliseconds of each frame: all, waiting, transfer, model, drawing.
        processor_ms: processor time of `homomorph ui`, for one frame.
    """
    whole, total_ms = "slider to screen, median", median(columns[0])
    meta = {"frames": len(columns[0]), **environment()}

    def record(name: str, value_ms: float, spread: float = 0.0) -> Record:
        return Record(name, value_ms, "ms", whole, total_ms / value_ms if value_ms else 0.0, spread, meta)

    quarters = quantiles(columns[0], n=4)
    return [
        record(whole, total_ms, (quarters[2] - quarters[0]) / total_ms),
        record("slider to screen, 95 % within", quantiles(columns[0], n=20)[-1]),
        *(
            record(f"{name}, median", median(times))
            for name, times in zip(("waiting", "transfer", "model", "drawing"), columns[1:], strict=True)
        ),
        record("processor time of homomorph ui, mean", processor_ms),
    ]


def drag(page: Any, slider: str, shares: Any, movements: int) -> None:
    """Press the mouse on a slider and move it; wait for each movement's frame before the next."""
    box = page.locator(slider).bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"], height)
    page.mouse.down()
    for share in itertools.islice(shares, movements):
        before = page.evaluate("window.frames_ms.length")
        page.mouse.move(box["x"] + box["width"] * share, height)
        page.wait_for_function("before => window.frames_ms.length > before", arg=before)
    page.mouse.up()


def processor_s(process: int) -> float:
    """Return the processor time that a process and its threads have used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
