"""Measure the time from a slider's movement to the new frame on the screen: python tests/ui/slider_time.py

The processor time hardly depends on what else the machine does; the other times do.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from screenshot import DESKTOP, started

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
    """Drag sliders of the page by the mouse, and print how long each new frame took."""
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
    total, *parts = columns
    print(f"{len(total)} frames: median {median(total):.0f} ms, 95 % within {quantiles(total, n=20)[-1]:.0f} ms")
    for name, times in zip(("waiting", "transfer", "model", "drawing"), parts, strict=True):
        print(f"  {name}: median {median(times):.0f} ms")
    print(f"processor time of homomorph ui: {1000 * used_s / len(total):.0f} ms a frame")


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
