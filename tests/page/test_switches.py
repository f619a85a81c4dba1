"""The switches below the box, and what the page makes of much, little and foreign text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.api.live import Live, serving
from tests.page.conftest import COLOURS, SHOTS, drawn
from tests.page.test_page import serious
from triptych.retrieval.ingest.run import index_source
from triptych.retrieval.ingest.sources import Folder
from triptych.settings import Settings

PARTS = {
    "screw": "A4 steel screw, drawing ZQ 88 and XK-4711",
    "beside": "XK-4712 the part",
    "turned": "part number KX-4711",
    "bolt": "a bolt",
    "nut": "a nut of part XK",
}
LONG = "Durch den Kaufvertrag wird der Verkäufer verpflichtet, die Sache zu übergeben. " * 40
ARABIC = "كلب يركض على الشاطئ"
TEXTS = {
    "long.md": LONG,
    "compound": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk" * 5,
    "arabic": ARABIC,
    "chinese": "一只狗在海滩上奔跑。" * 20,
}


def at(live: Live, browser: Browser, name: str, **context: Any) -> Page:
    opened = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | context))
    page = opened.new_page()
    page.set_default_timeout(10_000)
    page.goto(f"{live.url}/#{name}")
    page.wait_for_selector("#grid .tile")
    return page


def found(page: Page) -> list[str]:
    """The names below the tiles, or their texts, best first."""
    page.wait_for_selector(".score")
    labels = [b.get_attribute("aria-label") for b in page.locator("#grid button").all()]
    return [str(label).rsplit(", score", 1)[0] for label in labels]


def searched(page: Page, act: Any) -> tuple[dict[str, Any], list[str]]:
    """What was asked when this was done, and what was found."""
    with page.expect_response("**/search") as answered:
        act()
    page.wait_for_timeout(100)  # until it is drawn
    return answered.value.request.post_data_json, found(page)


@pytest.fixture(scope="module")
def stocked(live: Live) -> Iterator[Live]:
    """The server with parts, texts, and five pictures alike beside two others."""
    for name, items in {"parts": PARTS, "texts": TEXTS}.items():
        live.json("POST", "/v1/collections", {"name": name})
        rows = [{"id": id, "text": text} for id, text in items.items()]
        live.json("PUT", f"/v1/collections/{name}/items", {"items": rows})
    live.json("POST", "/v1/collections", {"name": "twins"})
    alike = {f"twin-{n}.png": drawn("red", "circle") for n in range(5)}
    others = {"other-1.png": drawn("blue", "square"), "other-2.png": drawn("green", "triangle")}
    for id, picture in (alike | others).items():
        kind = {"id": id, "metadata": f'{{"kind": "{id[:4]}"}}'}
        files = {"image": (id, picture, "image/png")}
        live.json("PUT", "/v1/collections/twins/items", data=kind, files=files)
    yield live


def test_exact_words_count_once_they_are_switched_on(browser: Browser, stocked: Live) -> None:
    page = at(stocked, browser, "parts")
    body, before = searched(page, lambda: page.fill("#words", "part XK-4711"))
    assert "hybrid" not in body
    switch = page.get_by_role("switch", name="Exact words count too")
    body, after = searched(page, switch.check)
    assert body["hybrid"] is True
    assert after.index(PARTS["screw"]) < before.index(PARTS["screw"])
    expect(page.locator("#timing")).to_contain_text("words")
    page.screenshot(path=SHOTS / "hybrid.png")
    page.locator("#grid button", has_text="ZQ 88").click()
    expect(page.locator(".shares li")).to_have_count(1)
    page.keyboard.press("Escape")
    body, again = searched(page, lambda: (switch.focus(), page.keyboard.press("Space")))
    assert "hybrid" not in body and again == before
    page.context.close()


def test_what_is_on_is_seen_in_forced_colours(browser: Browser, stocked: Live) -> None:
    page = at(stocked, browser, "parts", forced_colors="active")
    switch = page.get_by_role("switch", name="Exact words count too")

    def ground(what: Locator) -> str:
        return str(what.evaluate("(one) => getComputedStyle(one).backgroundColor"))

    off = ground(switch)
    assert switch.evaluate("(one) => getComputedStyle(one).borderTopWidth") == "1px"
    switch.check()
    assert ground(switch) != off
    assert ground(page.locator("#show-grid")) != ground(page.locator("#show-map"))
    page.context.close()


def test_variety_puts_something_else_among_what_is_alike(browser: Browser, stocked: Live) -> None:
    page = at(stocked, browser, "twins")
    body, before = searched(page, lambda: page.fill("#words", "a red circle"))
    assert "diversity" not in body
    assert all(name.startswith("twin") for name in before[:5])
    slider = page.get_by_label("Variety")
    slider.focus()
    body, after = searched(page, lambda: page.keyboard.press("End"))
    assert body["diversity"] == 0.8
    assert any(name.startswith("other") for name in after[:3])
    assert sorted(after) == sorted(before)
    page.screenshot(path=SHOTS / "variety.png")
    body, again = searched(page, lambda: page.keyboard.press("Home"))
    assert "diversity" not in body and again == before
    page.context.close()


def test_a_filter_that_leaves_nothing_says_what_to_do(browser: Browser, stocked: Live) -> None:
    page = at(stocked, browser, "twins")
    page.fill("#words", "a circle")
    assert len(found(page)) == 7
    page.get_by_label("kind").select_option(label="othe (2)")
    expect(page.locator("#status")).to_have_text("2 found")
    stocked.json("POST", "/v1/collections/twins/items/delete", {"ids": ["other-1.png"]})
    stocked.json("POST", "/v1/collections/twins/items/delete", {"ids": ["other-2.png"]})
    page.fill("#words", "a square")
    expect(page.locator("#empty")).to_contain_text("Nothing has all that the filters ask for")
    page.screenshot(path=SHOTS / "nothing.png")
    page.get_by_label("kind").select_option(label="any")
    expect(page.locator("#empty")).to_be_hidden()
    assert len(found(page)) == 5
    page.context.close()


def test_filters_are_those_that_somebody_can_choose_by(browser: Browser, live: Live) -> None:
    live.json("POST", "/v1/collections", {"name": "facts"})
    facts = [
        {
            "all": "same",
            "hash": f"{n % 4:064x}",
            "kind": f"kind {n % 3}",
            "number": n,
            "title": f"title {n}",
        }
        for n in range(40)
    ]
    rows = [{"id": str(n), "text": f"note {n}", "metadata": one} for n, one in enumerate(facts)]
    live.json("PUT", "/v1/collections/facts/items", {"items": rows})
    page = at(live, browser, "facts")
    expect(page.locator("#filters label")).to_have_count(1)
    expect(page.locator("#filters span")).to_have_text("kind")
    page.context.close()


@pytest.mark.parametrize("width", [390, 1200])
def test_long_and_foreign_texts_are_whole_and_stay_in_their_place(
    browser: Browser, stocked: Live, width: int
) -> None:
    page = at(stocked, browser, "texts", viewport={"width": width, "height": 800})
    tile = page.locator("#grid button", has_text=ARABIC)
    expect(tile.locator(".passage")).to_have_css("direction", "rtl")
    for passage in page.locator(".passage").all():
        assert passage.evaluate("(one) => one.scrollWidth <= one.clientWidth"), "no word is cut"
    page.screenshot(path=SHOTS / f"texts-{width}.png")
    page.locator("#grid button", has_text="Kaufvertrag").click()
    expect(page.locator("#detail-title")).to_have_text("long")
    expect(page.locator(".stage")).to_have_text(LONG.strip())  # the map knows 200 characters
    expect(page.get_by_role("button", name="More like this")).to_be_in_viewport()
    assert not serious(page)
    page.screenshot(path=SHOTS / f"text-{width}.png")
    page.context.close()


def test_everything_is_there_at_twice_the_size(browser: Browser, stocked: Live) -> None:
    half = {"width": 600, "height": 400}
    page = at(stocked, browser, "shapes", viewport=half, device_scale_factor=2)
    page.fill("#words", "-blue")
    page.press("#words", "Enter")
    page.wait_for_selector(".score")
    searched(page, lambda: page.fill("#words", "a red shape"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=SHOTS / "twice.png")
    page.evaluate("scrollTo(0, 600)")
    header = page.locator("header").bounding_box()
    assert header is not None and header["y"] < -100, "it does not cover half of the window"
    page.locator("#grid button").nth(3).click()
    expect(page.get_by_role("button", name="Close")).to_be_in_viewport()
    assert not serious(page)
    page.screenshot(path=SHOTS / "twice-open.png")
    page.context.close()


def test_a_map_of_one_picture_shows_it_in_the_middle(browser: Browser, live: Live) -> None:
    live.json("POST", "/v1/collections", {"name": "single"})
    files = {"image": ("one.png", drawn("red", "circle"), "image/png")}
    live.json("PUT", "/v1/collections/single/items", data={"id": "one.png"}, files=files)
    page = at(live, browser, "single")
    page.click("#show-map")
    box: Any = page.locator("#canvas").bounding_box()
    page.wait_for_timeout(500)
    page.screenshot(path=SHOTS / "map-of-one.png")
    page.mouse.click(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 - 60)
    expect(page.locator("#detail-title")).to_have_text("one")
    page.context.close()


def test_a_name_that_is_no_utf8_has_its_picture_and_takes_none_from_the_others(
    browser: Browser, tmp_path: Path
) -> None:
    folder, data = tmp_path / "pictures", tmp_path / "data"
    folder.mkdir()
    for at in range(20):
        name = b"odd-\xff.png" if at == 0 else f"{at}.png".encode()
        (folder / os.fsdecode(name)).write_bytes(drawn(COLOURS[at % 6], "circle", size=24))
    settings = Settings(data=data, model="hashing:64")
    with settings.open_collection(settings.library().path("names")) as collection:
        index_source(collection, Folder(str(folder)))
    with serving(data, model="hashing:64") as running:
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        asked = list[int]()
        page.on("response", lambda reply: asked.append(reply.status))
        page.goto(f"{running.url}/#names")
        page.wait_for_selector("#grid img")
        page.get_by_role("button", name="odd").click()
        expect(page.locator(".canvas > img").first).to_have_js_property("naturalWidth", 24)
        page.keyboard.press("Escape")
        page.click("#show-map")
        page.wait_for_timeout(800)
        assert set(asked) <= {200, 304}
        page.close()
