"""The page, used as a person would use it, in Chromium."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from time import sleep

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from tests.api.live import Live, serving
from tests.page.conftest import SHOTS, drawn, fill
from triptych.keys import new_key

_DROP = """([data, name, kind]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: kind}));
  for (const type of ["dragover", "drop"])
    dispatchEvent(new DragEvent(type, {dataTransfer: transfer, cancelable: true}));
}"""


def drop(page: Page, data: bytes, name: str, kind: str = "image/png") -> None:
    page.evaluate(_DROP, [base64.b64encode(data).decode(), name, kind])


def first(page: Page) -> str:
    page.wait_for_selector(".score")
    return page.locator("#grid button").first.get_attribute("aria-label") or ""


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_words_find(page: Page, requests: list[str], live: Live) -> None:
    page.locator("#words").press_sequentially("red circle")
    assert first(page).startswith("red circle")
    searches = [url for url in requests if url.endswith("/search")]
    assert len(searches) == 1, "one pause, one search"
    expect(page.locator("#timing")).to_contain_text("ms · index")
    assert all(url.startswith((live.url, "data:", "blob:")) for url in requests)
    page.screenshot(path=SHOTS / "words.png")


def test_a_dropped_picture_and_words_at_once(page: Page) -> None:
    drop(page, drawn("blue", "square"), "mine.png")
    before = first(page)
    assert before.startswith("blue square")
    expect(page.locator("#chips li")).to_have_count(1)
    page.fill("#words", "-blue")
    page.press("#words", "Enter")
    expect(page.locator("#chips li.minus")).to_contain_text("− blue")
    best = page.locator("#grid button").first
    expect(best).not_to_have_attribute("aria-label", before)
    page.get_by_role("button", name="Remove blue").click()
    expect(page.locator("#chips li")).to_have_count(1)


def test_weights(page: Page) -> None:
    page.fill("#words", "2:circle")
    page.press("#words", "Enter")
    expect(page.locator("#chips li")).to_contain_text("2× circle")
    page.get_by_role("button", name="Less circle").click()
    expect(page.locator("#chips li span")).to_have_text("circle")


def test_an_explanation_and_a_region(page: Page) -> None:
    page.fill("#words", "green square")
    page.press("#words", "Enter")
    page.fill("#words", "-round")
    page.press("#words", "Enter")
    page.wait_for_selector(".score")
    page.get_by_role("button", name="green square, score").click()
    expect(page.locator(".shares li")).to_have_count(2)
    score = float((page.locator("#detail h3").first.text_content() or "").split()[-1])
    shares = [one.replace("−", "-") for one in page.locator(".shares .number").all_text_contents()]
    assert sum(map(float, shares)) == pytest.approx(score, abs=0.0021)
    expect(page.locator(".why")).to_contain_text("index:")
    assert not serious(page)
    box = page.locator(".canvas").bounding_box()
    assert box is not None
    x, y, side = box["x"], box["y"], box["width"]
    page.mouse.move(x + side * 0.3, y + side * 0.3)
    page.mouse.down()
    page.mouse.move(x + side * 0.7, y + side * 0.7, steps=4)
    page.mouse.up()
    page.screenshot(path=SHOTS / "region.png")
    page.get_by_role("button", name="Search with the region").click()
    expect(page.locator("#chips li")).to_have_count(3)
    expect(page.locator("#chips li").last).to_contain_text("Region")


def test_a_picture_that_is_found_again_is_not_fetched_again(
    page: Page, requests: list[str]
) -> None:
    page.fill("#words", "red")
    page.wait_for_selector(".score")
    before = page.locator("#grid img").count()
    scores = page.locator(".score").all_text_contents()
    fetched = [one for one in requests if one.endswith("/image")]
    page.fill("#words", "a green shape")
    expect(page.locator(".score").first).not_to_have_text(scores[0])
    assert page.locator("#grid img").count() == before > 9
    assert [one for one in requests if one.endswith("/image")] == fetched


def test_more_like_this(page: Page) -> None:
    page.get_by_role("button", name="orange circle").click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#chips li")).to_contain_text("orange circle")
    assert not first(page).startswith("orange circle"), "what is asked with is not found itself"


def test_a_filter_out_of_the_collection(page: Page) -> None:
    page.get_by_label("colour").select_option(label="red (3)")
    expect(page.locator("#grid .tile")).to_have_count(3)  # without a word yet
    expect(page.locator("#status")).to_have_text("3 items")
    page.locator("#grid button").first.click()
    expect(page.locator("#detail-title")).to_contain_text("red ")
    page.keyboard.press("Escape")
    page.click("#show-map")
    expect(page.locator("#status")).to_have_text("3 on the map, alike beside alike")
    page.fill("#words", "a shape")
    page.get_by_label("colour").select_option(label="purple (3)")
    expect(page.locator("#status")).to_have_text("3 found")
    expect(page.locator("#grid .tile")).to_have_count(3)
    page.get_by_label("colour").select_option(label="any")
    expect(page.locator("#status")).to_have_text("19 found")


def test_an_error_is_a_sentence(page: Page) -> None:
    drop(page, b"no picture at all", "broken.png")
    expect(page.locator("#trouble")).to_be_visible()
    said = page.locator("#trouble").text_content() or ""
    assert said[0].isupper() and "." in said and "{" not in said and "Error" not in said
    page.screenshot(path=SHOTS / "error.png")


def test_what_is_no_picture_spoils_no_search(page: Page) -> None:
    drop(page, b"milk, bread", "list.txt", "text/plain")
    expect(page.locator("#trouble")).to_contain_text("“list.txt” is not a picture to search with.")
    expect(page.locator("#chips li")).to_have_count(0)
    page.fill("#words", "red circle")
    assert first(page).startswith("red circle")
    expect(page.locator("#trouble")).to_be_hidden()


def test_a_slow_or_dead_server_is_said_and_overcome(page: Page) -> None:
    def late(route: Route) -> None:
        page.wait_for_timeout(900)
        route.continue_()

    page.route("**/search", late)
    page.fill("#words", "purple")
    expect(page.locator("#status")).to_have_text("Searching …")
    expect(page.locator("#status")).to_have_text("19 found")
    page.unroute("**/search")
    page.route("**/search", lambda route: route.abort())
    page.fill("#words", "orange")
    expect(page.locator("#trouble")).to_have_text(
        "The server does not answer. Is it still running?"
    )
    page.unroute("**/search")
    page.fill("#words", "orange circle")
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("19 found")


def test_pictures_that_did_not_come_are_asked_for_again(page: Page) -> None:
    page.route("**/image", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#grid img[data-failed]")
    seen = Image.open(io.BytesIO(page.locator("#grid .frame").first.screenshot()))
    inner = seen.convert("RGB").crop((8, 8, seen.width - 8, seen.height - 8))
    assert len(inner.getcolors() or ()) == 1, "no sign of a broken picture"
    page.unroute("**/image")
    page.locator("#words").press_sequentially("a red circle")
    page.wait_for_selector(".score")
    expect(page.locator("#grid img[data-shown]")).to_have_count(18)


def test_what_the_collection_holds_is_text_not_markup(page: Page) -> None:
    page.fill("#words", "note")
    page.wait_for_selector(".passage")
    expect(page.locator(".passage").first).to_have_text("<b>a note</b> about shapes")


def test_upload(page: Page, live: Live, tmp_path: Path) -> None:
    live.json("POST", "/v1/collections", {"name": "mine"})
    page.goto("about:blank")
    page.goto(f"{live.url}/#mine")
    expect(page.locator("#empty")).to_contain_text("Nothing is in this collection")
    assert not serious(page)
    good, bad = tmp_path / "kite.png", tmp_path / "broken.png"
    good.write_bytes(drawn("red", "triangle"))
    bad.write_bytes(b"no picture")
    page.set_input_files("#add-files", [good, bad])
    expect(page.locator("#upload")).to_contain_text("1 of 2 pictures added.")
    expect(page.locator("#upload li")).to_contain_text("broken.png: ")
    page.screenshot(path=SHOTS / "upload.png")
    expect(page.get_by_role("button", name="kite")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()
    assert live.json("GET", "/v1/collections/mine")["count"] == 1
    live.client.delete("/v1/collections/mine")


def test_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("black triangle")
    page.wait_for_selector(".score")
    page.keyboard.press("ArrowDown")
    assert (page.locator(":focus").get_attribute("aria-label") or "").startswith("black ")
    page.keyboard.press("ArrowRight")
    assert page.locator(":focus").get_attribute("data-index") == "1"
    at = 1
    while page.locator(":focus img").count() == 0:  # the note, which has no picture to select in
        page.keyboard.press("ArrowRight")
        at += 1
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="More like this")).to_be_focused()
    page.locator(".canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.get_by_role("button", name="Search with the region")).to_be_enabled()
    page.keyboard.press("Escape")  # the region
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).not_to_be_visible()
    assert page.locator(":focus").get_attribute("data-index") == str(at), "back where it was"


def test_who_goes_to_the_results_before_they_are_there_stands_at_the_first(page: Page) -> None:
    def slow(route: Route) -> None:
        sleep(0.5)
        route.continue_()

    page.route("**/search", slow)
    page.locator("#words").press_sequentially("blue square")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".score")
    assert first(page).startswith("blue square")
    expect(page.locator("#grid button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_contain_text("blue square")


def test_the_map(page: Page) -> None:
    page.click("#show-map")
    page.locator("#canvas").focus()
    page.keyboard.press("+")
    page.wait_for_timeout(500)
    page.screenshot(path=SHOTS / "map.png")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    assert not serious(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_accessible_on_phone_and_desk_dark_and_light(
    browser: Browser, live: Live, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{live.url}/#shapes")
    page.wait_for_selector("#grid img")
    assert not serious(page)
    page.fill("#words", "-blue")
    page.press("#words", "Enter")
    page.fill("#words", "a red shape")
    page.wait_for_selector(".score")
    assert not serious(page)
    wide = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert wide, "nothing sticks out at the side"
    page.screenshot(path=SHOTS / f"{scheme}-{width}.png")
    context.close()


def test_signing_in(browser: Browser, tmp_path: Path) -> None:
    secret, key = new_key("me", role="admin")
    with serving(tmp_path, keys=[key]) as guarded:
        guarded.client.headers["Authorization"] = f"Bearer {secret}"
        guarded.json("POST", "/v1/collections", {"name": "shapes"})
        fill(guarded, "shapes")
        page = browser.new_page()
        page.goto(guarded.url)
        page.get_by_label("Key", exact=True).fill(secret)
        assert not serious(page)
        page.get_by_role("button", name="Sign in").click()
        picture = page.locator("#grid img").first
        expect(picture).to_have_js_property("naturalWidth", 200)
        page.close()


def test_a_wrong_key_is_said(browser: Browser, tmp_path: Path) -> None:
    secret, key = new_key("me", role="read")
    with serving(tmp_path, keys=[key]) as guarded:
        page = browser.new_page()
        page.goto(guarded.url)
        field, trouble = page.get_by_label("Key", exact=True), page.locator("#signin-trouble")
        expect(trouble).to_be_empty()
        field.fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(trouble).to_have_text("The key is not known.")
        assert not serious(page)
        page.screenshot(path=SHOTS / "wrong-key.png")
        field.fill("tt_…")  # as it is shown where keys are listed: no header takes it
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#signin")).to_be_visible()
        field.fill(f" {secret} ")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#empty h2")).to_have_text("There is no collection yet")
        expect(page.locator("#collection")).to_be_hidden()
        page.close()


def test_what_was_empty_is_looked_at_again(browser: Browser, live: Live) -> None:
    live.json("POST", "/v1/collections", {"name": "new"})
    page = browser.new_page()
    page.goto(f"{live.url}/#new")
    expect(page.locator("#empty h2")).to_have_text("Nothing is in this collection yet")
    fill(live, "new")
    page.fill("#words", "red circle")
    assert first(page).startswith("red circle")
    expect(page.locator("#empty")).to_be_hidden()
    page.close()
    live.client.delete("/v1/collections/new")


def test_the_time_of_the_last_search_does_not_stand_over_another_collection(
    page: Page, live: Live
) -> None:
    live.json("POST", "/v1/collections", {"name": "new"})
    page.reload()
    page.fill("#words", "red circle")
    expect(page.locator("#timing")).to_contain_text("ms")
    page.select_option("#collection", "new")
    expect(page.locator("#empty h2")).to_have_text("Nothing is in this collection yet")
    expect(page.locator("#timing")).to_be_empty()
    live.client.delete("/v1/collections/new")


def test_weight_compression_and_policy(live: Live) -> None:
    asked = {"Accept": "text/html", "Accept-Encoding": "gzip"}
    reply = live.client.get("/", headers=asked)
    assert reply.headers["content-encoding"] == "gzip"
    assert (
        "<script>" not in reply.text and "style=" not in reply.text and "onclick" not in reply.text
    )
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    again = live.client.get("/", headers=asked | {"If-None-Match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    from triptych.api.page.assets import assets

    assert sum(len(one.body) for one in assets().values()) <= 200_000
    assert live.client.get("/").json()["service"] == "triptych"
    assert live.client.get("/page/../app.py").status_code in (401, 404)
