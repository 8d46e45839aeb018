"""The page in a browser: headless Chromium, moved by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from homomorph_client.pictures import load_picture
from homomorph_ui.app import page_app

CHROMIUM = shutil.which("chromium")
DOCS = Path(__file__).parents[2] / "docs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `apt-get install chromium`"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A tab of the browser, and all that it did."""

    def __init__(self, browser: Any, **settings: Any) -> None:
        self.page = browser.new_page(**settings)
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def picture(self) -> str:
        """Return what is on the canvas, once no frame is on its way."""
        self.page.locator("#times").wait_for()
        self.page.locator("#result:not(.busy)").wait_for()
        picture: str = self.page.evaluate("() => document.querySelector('canvas').toDataURL()")
        return picture

    def brightest(self) -> int:
        """Return the largest value of red on the canvas, from 0 to 255."""
        self.picture()
        value: int = self.page.evaluate(
            """() => {
                const { data } = document.querySelector('canvas').getContext('2d').getImageData(0, 0, 512, 512);
                return data.reduce((largest, value, place) => (place % 4 ? largest : Math.max(largest, value)), 0);
            }"""
        )
        return value

    def drag(self, slider: str, *shares: float) -> None:
        """Press the mouse on a slider and move it to these shares of its length, without letting go."""
        self.page.locator(slider).scroll_into_view_if_needed()
        box = self.page.locator(slider).bounding_box()
        places = [(box["x"] + box["width"] * share, box["y"] + box["height"] / 2) for share in shares]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places:
            self.page.mouse.move(*place)


@pytest.fixture
def tab(chromium: Any, page: str) -> Iterator[Tab]:
    opened = Tab(chromium)
    opened.page.goto(f"http://{page}/")
    opened.picture()
    yield opened
    opened.page.close()
    assert opened.errors == []
    hosts = {urlsplit(url).netloc for url in opened.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {page}


def test_a_slider_changes_the_picture_as_it_is_dragged(tab: Tab) -> None:
    before = tab.picture()
    tab.drag("#slider-red", 0.0, 0.25)
    quarter = tab.picture()
    tab.drag("#slider-red", 0.25, 0.5)
    assert len({before, quarter, tab.picture()}) == 3
    tab.page.mouse.up()
    assert float(tab.page.locator("#slider-red").input_value()) == pytest.approx(1.0, abs=0.1)


def test_only_the_newest_of_the_waiting_frames_is_asked_for(tab: Tab, blender: Any) -> None:
    before = blender.calls
    tab.page.evaluate(
        """() => {
            const slider = document.querySelector('#slider-red');
            for (let step = 0; step <= 100; step++) {
                slider.value = step / 50;
                slider.dispatchEvent(new Event('input'));
            }
        }"""
    )
    tab.picture()
    assert blender.calls - before == 2  # the first, and the newest when it was answered


def test_all_moves_every_slider(tab: Tab) -> None:
    tab.page.locator("#slider-All-sliders").fill("1")
    assert [tab.page.locator(f"#slider-{name}").input_value() for name in ("red", "green")] == ["1", "1"]
    tab.page.get_by_role("button", name="All to 0").click()
    assert tab.page.locator("#slider-red").input_value() == "0"


def test_the_keyboard_moves_a_slider(tab: Tab) -> None:
    tab.page.locator("#slider-green").focus()
    with tab.page.expect_response("**/frames"):
        tab.page.keyboard.press("PageUp")
    assert float(tab.page.locator("#slider-green").input_value()) > 0


def test_a_morph_plays_and_stops(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Play").click()
    tab.page.get_by_role("button", name="Pause").wait_for()
    first = tab.picture()
    tab.page.wait_for_function("first => document.querySelector('canvas').toDataURL() !== first", arg=first)
    tab.page.get_by_role("button", name="Pause").click()
    tab.page.get_by_role("button", name="Play").wait_for()


def test_labels_edit_one_picture(tab: Tab) -> None:
    before = tab.picture()
    tab.page.locator("#mode").get_by_text("Towards labels").click()
    assert not tab.page.locator("[data-slot=b]").is_visible()
    assert tab.page.locator("#slider-red").is_disabled()
    tab.picture()
    with tab.page.expect_response("**/frames") as answered:
        tab.page.get_by_role("button", name="bright").click()
    assert answered.value.request.post_data_json["labels"]["red"] == ["bright"]
    assert tab.page.locator("#slider-red").input_value() == "1"
    assert tab.picture() != before


def test_the_difference_to_the_same_picture_is_black(tab: Tab) -> None:
    tab.page.locator("#view").get_by_text("Difference").click()
    assert tab.brightest() == 0
    tab.page.locator("#against").get_by_text("B").click()
    assert tab.brightest() > 0


@pytest.mark.parametrize(("button", "name"), [("PNG", "morph.png"), ("Strip", "strip.png"), ("GIF", "morph.gif")])
def test_morphs_are_downloaded(tab: Tab, button: str, name: str) -> None:
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name=button, exact=True).click()
    assert download.value.suggested_filename == name
    width = load_picture(download.value.path()).shape[1]
    assert width == (25 * 256 if button == "Strip" else 256)


def test_without_details_frames_have_the_models_size(tab: Tab) -> None:
    with tab.page.expect_response("**/frames") as answered:
        tab.page.get_by_label("Keep details").uncheck()
    assert answered.value.headers["x-frames"] == "1,64,64"


def test_a_file_that_is_no_picture_is_named(tab: Tab, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("This is no picture.")
    tab.page.locator("[data-slot=a] input").set_input_files(note)
    mistake = tab.page.locator("[data-slot=a] .mistake")
    mistake.wait_for()
    assert mistake.text_content().startswith("note.txt: the picture is not a picture that can be read (PNG, JPEG")
    tab.page.locator("[data-slot=a] input").set_input_files(DOCS / "target.png")
    mistake.wait_for(state="hidden")


def test_the_model_goes_away_and_comes_back(tab: Tab, blender: Any) -> None:
    blender.is_down = True
    tab.page.locator("#slider-red").fill("1")
    problem = tab.page.get_by_text("no server answers at 127.0.0.1:1")
    problem.wait_for()
    before = tab.picture()
    blender.is_down = False
    problem.wait_for(state="hidden")
    assert tab.picture() != before  # the frame that was asked for in vain


def test_the_page_waits_for_its_own_server(chromium: Any, served_page: Any, blender: Any) -> None:
    pictures = [load_picture(DOCS / f"{name}.png") for name in ("source", "target")]
    app = page_app(blender, "a blender", pictures)
    with served_page(app) as port:
        tab = Tab(chromium)
        tab.page.goto(f"http://127.0.0.1:{port}/")
        tab.picture()
    tab.page.locator("#slider-red").fill("1")
    problem = tab.page.get_by_text("homomorph ui has stopped")
    problem.wait_for()
    with served_page(app, port):
        problem.wait_for(state="hidden")
        assert tab.page.locator("#slider-red").input_value() == "1"
    tab.page.close()


def test_it_begins_without_pictures_on_a_phone(chromium: Any, served_page: Any, blender: Any) -> None:
    with served_page(page_app(blender, "a blender")) as port:
        tab = Tab(chromium, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
        tab.page.goto(f"http://127.0.0.1:{port}/")
        tab.page.get_by_text("Choose a picture to begin.").wait_for()
        for slot, name in (("a", "source"), ("b", "target")):
            tab.page.locator(f"[data-slot={slot}] input").set_input_files(DOCS / f"{name}.png")
        tab.picture()
        assert tab.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        tab.page.close()
        assert tab.errors == []
