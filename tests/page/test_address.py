"""The search in the address, and from hit to hit: what people expect of Back, a link, an arrow."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.api.live import Live
from tests.page.test_page import drawn, drop, first


def test_back_finds_the_search_before(page: Page) -> None:
    page.locator("#words").press_sequentially("a red circle")
    page.wait_for_selector(".score")
    expect(page).to_have_title("a red circle – Triptych")
    page.keyboard.press("Enter")
    page.locator("#words").press_sequentially("-square")
    expect(page).to_have_title("a red circle, -square – Triptych")
    page.go_back()  # one step for the words, however many keys they took
    expect(page.locator("#words")).to_have_value("")
    expect(page.locator("#chips li")).to_contain_text("a red circle")
    page.go_back()
    expect(page.locator("#words")).to_have_value("a red circle")
    expect(page.locator("#chips li")).to_have_count(0)
    page.go_back()
    expect(page.locator("#status")).to_have_text("19 items")
    page.go_forward()
    expect(page.locator("#words")).to_have_value("a red circle")
    page.wait_for_selector(".score")


def test_a_reload_keeps_words_pictures_filters_and_switches(page: Page) -> None:
    drop(page, drawn("blue", "square"), "mine.png")
    page.locator("#words").fill("a square")
    page.get_by_label("colour").select_option(label="blue (3)")
    page.get_by_label("Exact words count too").check()
    expect(page.locator("#status")).to_have_text("3 found")
    assert first(page).startswith("blue square")
    page.reload()
    expect(page.locator("#status")).to_have_text("3 found")
    expect(page.locator("#chips li")).to_contain_text("mine.png")
    expect(page.locator("#words")).to_have_value("a square")
    expect(page.get_by_label("Exact words count too")).to_be_checked()
    assert page.get_by_label("colour").locator("option:checked").text_content() == "blue (3)"
    assert first(page).startswith("blue square")


def test_a_link_opens_the_search_in_another_tab(page: Page, live: Live) -> None:
    page.fill("#words", "-2:green")
    page.keyboard.press("Enter")
    page.fill("#words", "a triangle")
    expect(page.locator("#chips li")).to_contain_text("−2× green")
    expect(page).to_have_title("green, a triangle – Triptych")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#chips li")).to_contain_text("−2× green")
    expect(other.locator("#words")).to_have_value("a triangle")
    assert first(other) == first(page)
    other.get_by_role("button", name=first(page)).click()
    other.get_by_role("button", name="More like this").click()
    expect(other).to_have_url(f"{live.url}/#shapes?id={_asked(other)}")


def _asked(page: Page) -> str:
    return f"1%3A{(page.locator('#chips li span').text_content() or '').replace(' ', '-')}.png"


@pytest.mark.parametrize("address", ["#shapes?text=x&id=&filter={&variety=x&nonsense", "#%E0%A4?q"])
def test_a_broken_address_opens_what_there_is(page: Page, live: Live, address: str) -> None:
    page.goto("about:blank")
    page.goto(f"{live.url}/{address}")
    page.wait_for_selector("#grid button")  # whichever collection is the first by now
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("#chips li")).to_have_count(0)


def test_a_link_to_a_collection_that_is_gone_says_so(page: Page, live: Live) -> None:
    page.goto("about:blank")
    page.goto(f"{live.url}/#gone")
    expect(page.locator("#trouble")).to_contain_text(
        "There is no collection “gone” here. This is “"
    )
    page.wait_for_selector("#grid button")
    expect(page.locator("#status")).to_contain_text("items")
    page.locator("#words").fill("a red circle")
    expect(page.locator("#trouble")).to_be_hidden()


def test_skipping_to_the_results_is_no_search(page: Page) -> None:
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    assert page.url.endswith("#shapes")


def test_from_hit_to_hit_without_closing(page: Page) -> None:
    page.fill("#words", "a red shape")
    page.wait_for_selector(".score")
    page.get_by_label("colour").select_option(label="red (3)")  # without the note
    expect(page.locator("#status")).to_have_text("3 found")
    names = [tile.text_content() for tile in page.locator("#grid .name").all()]
    page.locator("#grid button").first.click()
    expect(page.get_by_role("button", name="Previous")).to_be_hidden()
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#detail-title")).to_have_text(names[1] or "")
    expect(page.locator(".shares li")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-title")).to_have_text(names[2] or "")
    expect(page.get_by_role("button", name="Next")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#detail-title")).to_have_text(names[1] or "")
    page.keyboard.press("Escape")
    expect(page.locator("#grid [data-index='1']")).to_be_focused()


def test_arrows_on_the_picture_select_and_do_not_turn(page: Page) -> None:
    page.locator("#grid button:has(img)").first.click()
    title = page.locator("#detail-title").text_content() or ""
    page.locator(".canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="Search with the region")).to_be_enabled()
    expect(page.locator("#detail-title")).to_have_text(title)
