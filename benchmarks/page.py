"""The page in Chromium: from the pause after a key to 50 results on the screen, and scrolling.

100,000 items with random vectors of the default model's width and small drawn pictures, the same 64
over and over: what is measured is the way, not what is found. Loopback, no key, nothing cached.
"""

from __future__ import annotations

import io
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from benchmarks.common import WORK
from benchmarks.processes import our_server
from benchmarks.random_model import RandomModel
from triptych.api.page.assets import assets
from triptych.retrieval.collection import Collection
from triptych.retrieval.prepare import Prepared
from triptych.settings import Settings
from triptych.types import Item

ITEMS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
PICTURES = 64
SEARCHES = 15
PAUSE = 120  # milliseconds, main.js
REST = 2_000  # milliseconds that a person looks before scrolling
SCROLLS = ((2_000, 15), (5_000, 15), (30_000, 15))  # pixels and seconds: wheel, fling, bar

_SHOWN = """() => new Promise((done) => {
  const grid = document.getElementById("grid");
  const start = performance.now();
  const input = document.getElementById("words");
  for (const one of grid.querySelectorAll("button")) one.dataset.stamp = "old";
  const look = () => {
    const tiles = [...grid.querySelectorAll("button")];
    const fresh = tiles.length > 0 && tiles.every((one) => !one.dataset.stamp);
    const inView = tiles.filter((one) => one.getBoundingClientRect().top < innerHeight);
    const drawn = inView.every((one) => one.querySelector("img")?.naturalWidth);
    if (fresh && !window.shownAt) window.shownAt = performance.now() - start;
    if (fresh && drawn) done([window.shownAt, performance.now() - start]);
    else requestAnimationFrame(look);
  };
  window.shownAt = 0;
  input.value = `a red thing ${Math.random()}`;
  input.dispatchEvent(new InputEvent("input", {bubbles: true}));
  look();
})"""
_SCROLL = """async ([speed, seconds]) => {
  const grid = document.getElementById("grid");
  const end = document.documentElement.scrollHeight - innerHeight;
  const start = performance.now();
  let frames = 0, blank = 0, seen = 0, empty = 0, pictures = 0;
  scrollTo(0, 0);
  while (scrollY < end && performance.now() - start < 1000 * seconds) {
    scrollTo(0, speed * (performance.now() - start) / 1000);
    await new Promise(requestAnimationFrame);
    const tiles = [...grid.children].filter((one) => {
      const area = one.getBoundingClientRect();
      return area.bottom > 0 && area.top < innerHeight;
    });
    const bare = tiles.filter((one) => !one.querySelector("img")?.naturalWidth);
    const nothing = bare.filter((one) => !one.querySelector("img")?.style.backgroundImage);
    const tops = (some) => new Set(some.map((one) => one.style.transform.split(",")[1]));
    const [rows, filled] = [tops(tiles), tops(tiles.filter((one) => !nothing.includes(one)))];
    frames++;
    if (!tiles.length || filled.size < rows.size) blank++;
    seen += tiles.length;
    empty += nothing.length;
    pictures += bare.length;
  }
  return [Math.round(scrollY), frames, blank, seen, empty, pictures];
}"""


def filled(folder: Path) -> Settings:
    """Return a data folder with the collection `many`."""
    settings = Settings(data=folder)
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        model, jpegs = settings.open_model(), [drawn(at) for at in range(PICTURES)]
        path = folder / "default" / "many"
        with Collection.open(path, embedder=RandomModel(model)) as collection:
            for start in range(0, ITEMS, 2_000):
                collection.put([prepared(at, jpegs) for at in range(start, start + 2_000)])
            collection.optimize()
        settings.keep(model)
        (folder / "done").touch()
    return settings


def prepared(at: int, jpegs: list[bytes]) -> Prepared:
    item = Item(id=f"{at}.jpg", image=Image.new("RGB", (1, 1)))
    return Prepared(item=item, thumbnail=jpegs[at % PICTURES])


def drawn(at: int) -> bytes:
    """Return a JPEG of some discs, as large as a thumbnail is."""
    random = np.random.default_rng(at)
    picture = Image.new("RGB", (256, 256), "white")
    for _ in range(12):
        x, y, r = random.integers(20, 236, 3)
        colour = tuple(random.integers(0, 255, 3).tolist())
        ImageDraw.Draw(picture).ellipse((x - r / 4, y - r / 4, x + r / 4, y + r / 4), colour)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def searched(page: Page) -> None:
    """Print how long it takes from the pause after a key to results, and to their pictures."""
    times = [page.evaluate(_SHOWN) for _ in range(SEARCHES + 3)][3:]
    for name, column in (("50 results shown", 0), ("all pictures in view drawn", 1)):
        found = sorted(time[column] - PAUSE for time in times)
        middle, worst = statistics.median(found), found[-1]
        print(
            f"{name}: median {middle:.0f} ms, worst of {len(found)} {worst:.0f} ms after the pause"
        )


def scrolled(page: Page) -> None:
    """Print what was missing while 10,000 thumbnails were scrolled through, frame by frame.

    A row is blank where not one of its tiles shows a picture, be it the tiny one of a mosaic.
    """
    for speed, seconds in SCROLLS:
        page.mouse.move(600, 500)
        page.evaluate(_SHOWN)  # a new search, of which only the first hits are there
        if speed == SCROLLS[-1][0]:
            page.mouse.move(1_275, 300)  # as whoever drags the bar does
        page.wait_for_timeout(REST)
        found = page.evaluate(_SCROLL, [speed, seconds])
        reached, frames, blank, seen, empty, pictures = found
        print(
            f"scrolling at {speed:,} px/s to {reached:,} px, {frames} frames: {blank} with a blank "
            f"row; of the tiles in view {100 * empty / seen:.1f} % had no picture at all, "
            f"{100 * (pictures - empty) / seen:.1f} % a tiny one"
        )


def main() -> None:
    settings = filled(WORK / "page")
    weight = sum(len(one.body) for one in assets().values())
    packed = sum(len(one.packed) for one in assets().values())
    print(f"all files of the page: {weight / 1000:.1f} kB, {packed / 1000:.1f} kB compressed")
    find = ["scripts/find-program", "chromium", "fonts-noto-core"]
    chromium = subprocess.run(find, capture_output=True, text=True, check=True)
    with ExitStack() as stack:
        url, _ = stack.enter_context(our_server(settings.data, "--log", "off"))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=chromium.stdout.strip(), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(f"{url}/#many")
        page.wait_for_selector("#grid img", timeout=120_000)
        page.wait_for_timeout(3_000)
        searched(page)
        scrolled(page)
        browser.close()


if __name__ == "__main__":
    main()
