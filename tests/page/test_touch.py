"""The page on a phone and with the clipboard: fingers, paste, the file picker, large pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.api.live import Live, serving
from tests.page.conftest import COLOURS, SHOTS, drawn

_COPY = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const blob = new Blob([bytes], {type: "image/png"});
  await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
}"""
_IN_VIEW = """() => [...document.querySelectorAll("#grid .tile")].filter((one) => {
  const area = one.getBoundingClientRect();
  return area.bottom > 0 && area.top < innerHeight;
}).map((one) => one.querySelector("img")?.style.backgroundImage ?? "")"""

Point = tuple[float, float]


@pytest.fixture
def phone(browser: Browser, live: Live) -> Iterator[Page]:
    """The page on a phone, touched with fingers."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto(f"{live.url}/#shapes")
    page.wait_for_selector("#grid img")
    yield page
    context.close()


@pytest.mark.parametrize("width", [320, 375, 390])
def test_what_stands_above_the_box_is_one_row_on_a_phone(phone: Page, width: int) -> None:
    phone.set_viewport_size({"width": width, "height": 740})
    boxes = [
        phone.locator(one).bounding_box() for one in ("h1", "#collection", "#show-map", "#add")
    ]
    middles = [box["y"] + box["height"] / 2 for box in boxes if box is not None]
    assert len(middles) == 4 and max(middles) - min(middles) < 2
    expect(phone.get_by_role("heading", name="Triptych")).to_be_visible()


class Fingers:
    """Touches as a screen reports them, not as a script makes them up."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session: CDPSession = page.context.new_cdp_session(page)

    def _send(self, kind: str, points: list[Point]) -> None:
        touches = [{"x": x, "y": y, "id": at} for at, (x, y) in enumerate(points)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def move(self, ways: list[tuple[Point, Point]], steps: int = 6) -> None:
        """Put fingers down, move each along its way, lift them."""
        self._send("touchStart", [start for start, _ in ways])
        for step in range(1, steps + 1):
            part = step / steps
            self._send("touchMove", [_between(start, end, part) for start, end in ways])
        self._page.wait_for_timeout(150)  # lifted at rest: a fling would swallow the next tap
        self._send("touchEnd", [])


def _between(start: Point, end: Point, part: float) -> Point:
    return tuple(a + (b - a) * part for a, b in zip(start, end, strict=True))  # type: ignore[return-value]


def opened(page: Page) -> str:
    title = page.locator("#detail-title").text_content() or ""
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).not_to_be_visible()
    return title


def test_two_fingers_zoom_the_map_where_they_are(phone: Page) -> None:
    phone.get_by_role("button", name="Map").tap()
    box: Any = phone.locator("#canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    phone.wait_for_timeout(300)
    # a thing that lies aside of the middle, found by tapping around it: where depends on the model
    for turn in range(48):
        away, angle = 40 + turn // 16 * 10, turn * math.pi / 8
        dx, dy = round(away * math.cos(angle)), round(away * math.sin(angle))
        phone.touchscreen.tap(middle[0] + dx, middle[1] + dy)
        if phone.locator("#detail").is_visible():
            break
    before = opened(phone)
    x, y = middle
    Fingers(phone).move([((x - 30, y), (x - 60, y)), ((x + 30, y), (x + 60, y))])
    phone.screenshot(path=SHOTS / "pinched.png")
    expect(phone.locator("#detail")).not_to_be_visible()
    phone.touchscreen.tap(x + 2 * dx, y + 2 * dy)
    assert opened(phone) == before, "it is twice as far from the middle now"
    # one finger moves it
    Fingers(phone).move([((x, y), (x - 40, y - 30))])
    phone.touchscreen.tap(x + 2 * dx - 40, y + 2 * dy - 30)
    assert opened(phone) == before


def test_a_finger_draws_a_region(phone: Page) -> None:
    phone.get_by_role("button", name="blue square").tap()
    button = phone.get_by_role("button", name="Search with the region")
    expect(button).to_be_disabled()
    box: Any = phone.locator(".canvas").bounding_box()
    x, y, side = box["x"], box["y"], box["width"]
    start, end = (x + side * 0.2, y + side * 0.2), (x + side * 0.8, y + side * 0.7)
    Fingers(phone).move([(start, end)])
    mark: Any = phone.locator(".mark").bounding_box()
    assert mark["width"] == pytest.approx(0.6 * side, abs=3)
    assert mark["height"] == pytest.approx(0.5 * side, abs=3)
    button.tap()
    expect(phone.locator("#chips li")).to_contain_text("Region", timeout=20_000)
    phone.wait_for_selector(".score")
    best = phone.locator("#grid button").first.get_attribute("aria-label") or ""
    assert best.startswith("blue ")


def test_a_picture_out_of_the_clipboard(browser: Browser, live: Live) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{live.url}/#shapes")
    page.wait_for_selector("#grid img")
    page.evaluate(_COPY, base64.b64encode(drawn("purple", "circle")).decode())
    page.keyboard.press("Control+v")
    expect(page.locator("#chips li")).to_contain_text("Pasted picture")
    page.wait_for_selector(".score")
    best = page.locator("#grid button").first.get_attribute("aria-label") or ""
    assert best.startswith("purple circle")
    page.evaluate("navigator.clipboard.writeText('black')")
    page.locator("#words").focus()
    page.keyboard.press("Control+v")
    expect(page.locator("#words")).to_have_value("black")
    expect(page.locator("#chips li")).to_have_count(1)
    context.close()


def test_a_picture_out_of_the_file_picker(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    file.write_bytes(drawn("orange", "triangle"))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search with a picture").click()
    chooser.value.set_files(file)
    expect(page.locator("#chips li")).to_contain_text("mine.png")
    page.wait_for_selector(".score")
    best = page.locator("#grid button").first.get_attribute("aria-label") or ""
    assert best.startswith("orange triangle")
    page.get_by_role("button", name="Remove mine.png").click()
    with page.expect_file_chooser() as chooser:  # the same file once more
        page.get_by_role("button", name="Search with a picture").click()
    chooser.value.set_files(file)
    expect(page.locator("#chips li")).to_have_count(1)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server whose collection is longer than a few windows, and has a wide picture."""
    with serving(tmp_path_factory.mktemp("many"), model="hashing:64") as running:
        running.json("POST", "/v1/collections", {"name": "many"})
        uris = [
            f"data:image/png;base64,{base64.b64encode(drawn(colour, 'circle', size=24)).decode()}"
            for colour in COLOURS
        ]
        items = [{"id": f"{at}.png", "image": uris[at % len(uris)]} for at in range(700)]
        for start in range(0, len(items), 350):
            some = items[start : start + 350]
            running.json("PUT", "/v1/collections/many/items", {"items": some})
        wide = io.BytesIO()
        Image.new("RGB", (1200, 300), "navy").save(wide, "PNG")
        running.json("POST", "/v1/collections", {"name": "one"})
        files = {"image": ("wide.png", wide.getvalue())}
        running.json("PUT", "/v1/collections/one/items", data={"id": "wide.png"}, files=files)
        yield running


def test_the_picture_itself_is_shown_and_not_a_stretched_small_one(
    browser: Browser, many: Live
) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto(f"{many.url}/#one")
    page.get_by_role("button", name="wide").click()
    picture = page.locator(".canvas > img").first
    expect(picture).to_have_js_property("naturalWidth", 1200)
    box: Any = picture.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(4, rel=0.02)
    page.keyboard.press("Escape")
    page.route("**/image?side=*", lambda route: route.abort())
    page.get_by_role("button", name="wide").click()
    expect(picture).to_have_js_property("naturalWidth", 256)
    small: Any = picture.bounding_box()
    assert (small["width"], small["height"]) == pytest.approx((box["width"], box["height"]), abs=2)
    page.close()


@pytest.mark.parametrize("words", ["", "a circle"])
def test_a_jump_of_the_scroll_bar_shows_tiny_pictures_at_once(
    browser: Browser, many: Live, words: str
) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto(f"{many.url}/#many")
    page.wait_for_selector("#grid img")
    if words:
        page.fill("#words", words)
        page.wait_for_selector(".score")
    page.route("**/image", lambda route: route.abort())  # no thumbnail comes any more
    page.mouse.wheel(0, 50)
    with page.expect_response("**/items/mosaic"):
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    shown = []
    for _ in range(50):  # a function to wait for would be evaluated, which the page forbids
        page.wait_for_timeout(100)
        shown = page.evaluate(_IN_VIEW)
        if all(one.startswith("url") for one in shown):
            break
    assert len(shown) > 10 and all(one.startswith("url") for one in shown), shown
    page.screenshot(path=SHOTS / f"tiny-{len(words)}.png")
    page.close()
