"""A server with a collection of drawn pictures, and a real Chromium in front of it."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

from tests.api.live import Live, serving

ROOT = Path(__file__).parent.parent.parent
SHOTS = ROOT / ".work/screenshots"
COLOURS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("circle", "square", "triangle")


def drawn(colour: str, shape: str, *, size: int = 200) -> bytes:
    """Return a PNG of one shape on white."""
    picture = Image.new("RGB", (size, size), "white")
    draw, box = ImageDraw.Draw(picture), (size // 5, size // 5, size * 4 // 5, size * 4 // 5)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(size // 2, box[1]), (box[2], box[3]), (box[0], box[3])], fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    path = shutil.which("chromium")
    if path is None:
        find = [ROOT / "scripts/find-program", "chromium", "fonts-noto-core"]
        path = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        # a container has no user namespaces for the sandbox; only our own page is opened
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with the default model and the collection `shapes`."""
    with serving(tmp_path_factory.mktemp("page"), model="default", pool=4) as running:
        running.json("POST", "/v1/collections", {"name": "shapes"})
        fill(running, "shapes")
        yield running


def fill(live: Live, name: str) -> None:
    """Put a picture of each colour and shape into a collection, and a note."""
    for colour in COLOURS:
        for shape in SHAPES:
            id = f"{colour}-{shape}.png"
            reply = live.client.put(
                f"/v1/collections/{name}/items",
                data={"id": id, "metadata": f'{{"colour": "{colour}"}}'},
                files={"image": (id, drawn(colour, shape), "image/png")},
            )
            assert reply.json()["written"] == 1, reply.text
    note = {"id": "note", "text": "<b>a note</b> about shapes"}
    live.json("PUT", f"/v1/collections/{name}/items", {"items": [note]})


@pytest.fixture
def requests() -> list[str]:
    """All addresses that the page asked for."""
    return []


@pytest.fixture
def page(browser: Browser, live: Live, requests: list[str]) -> Iterator[Page]:
    """The page, open; whatever it complains of fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened, complaints = context.new_page(), list[str]()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security" in said.text else None,
    )
    opened.on("request", lambda request: requests.append(request.url))
    opened.set_default_timeout(10_000)
    opened.goto(f"{live.url}/#shapes")
    opened.wait_for_selector("#grid img")
    yield opened
    context.close()
    assert not complaints
