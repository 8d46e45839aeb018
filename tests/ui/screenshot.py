"""Take the pictures of the page for the documents: python tests/ui/screenshot.py docs"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURES = [str(Path(__file__).parents[2] / "docs" / f"{name}.png") for name in ("source", "target")]
SLIDERS = {"mouth": 1, "hair-colour": 1, "glasses": 1, "skin": 0.5}
LABELS = ("smiling", "pink hair", "round glasses")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@contextmanager
def started() -> Iterator[tuple[Any, str, int]]:
    """Start `homomorph ui` on the shipped model, and yield a browser, the page's address and the process's number."""
    command = [Path(sys.executable).parent / "homomorph", "ui", *PICTURES, "--run", "avatars64", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the page did not start"
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser, found.group(), server.pid
        browser.close()
        server.terminate()


def main() -> None:
    """Take the pictures of the page."""
    folder = Path(sys.argv[1])
    with started() as (browser, address, _):
        for name, viewport, colours, towards in (
            ("ui.png", DESKTOP, "light", "picture"),
            ("ui-labels.png", DESKTOP, "dark", "labels"),
            ("ui-phone.png", PHONE, "light", "picture"),
        ):
            page = browser.new_page(viewport=viewport, color_scheme=colours, device_scale_factor=1.5)
            page.set_default_timeout(120_000)
            page.goto(address)
            move(page, towards)
            page.screenshot(path=folder / name, full_page=viewport == DESKTOP)
            page.close()
            # A palette of 256 colours is enough, and a third of the size.
            Image.open(folder / name).convert("RGB").quantize(256).save(folder / name, optimize=True)


def move(page: Any, towards: str) -> None:
    """Move sliders, or choose labels, and wait for the last frame."""
    page.locator("#times").wait_for()
    if towards == "labels":
        page.locator("#mode").get_by_text("Towards labels").click()
        for label in LABELS:
            page.get_by_role("button", name=label).click()
    else:
        for group, strength in SLIDERS.items():
            page.locator(f"#slider-{group}").fill(str(strength))
    page.locator("#where").click()  # takes the focus away
    page.locator("#result:not(.busy)").wait_for()


if __name__ == "__main__":
    main()
