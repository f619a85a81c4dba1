"""The documents' site in Chromium: on a desk and a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.page.conftest import SHOTS
from tests.test_site import built

DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_CUT = """() => [...document.querySelectorAll("pre > code")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && !one.closest(".language-text"))
  .map((one) => one.textContent)"""
_PAPER = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sorted(built(tmp_path_factory.mktemp("site")).rglob("index.html"))


@pytest.fixture(params=[("light", DESK), ("light", PHONE), ("dark", DESK), ("dark", PHONE)])
def window(request: pytest.FixtureRequest, browser: Browser) -> Iterator[tuple[str, Page]]:
    scheme, size = request.param
    context = browser.new_context(viewport=size, color_scheme=scheme)
    yield scheme, context.new_page()
    context.close()


def test_no_page_is_cut_at_the_side_and_each_has_the_scheme_that_is_asked_for(
    pages: list[Path], window: tuple[str, Page]
) -> None:
    scheme, page = window
    for path in pages:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate(_CUT) == [], path
        red, green, blue = page.evaluate(_PAPER)[:3]
        assert (red + green + blue > 600) == (scheme == "light"), path
    width: Any = page.viewport_size
    page.goto((pages[0].parents[1] / "start/index.html").as_uri())
    page.screenshot(path=SHOTS / f"site-{scheme}-{width['width']}.png")


def test_a_reader_chooses_the_scheme_and_finds_it_again(
    browser: Browser, pages: list[Path]
) -> None:
    context = browser.new_context(viewport=DESK, color_scheme="light")
    page = context.new_page()
    page.goto(pages[0].as_uri())
    page.get_by_title("Light").click()
    page.get_by_title("Dark").click()
    assert sum(page.evaluate(_PAPER)[:3]) < 300
    page.reload()
    assert sum(page.evaluate(_PAPER)[:3]) < 300
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] == "critical"] == []
    context.close()
