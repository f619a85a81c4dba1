from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.retrieval.rag import pdfs
from triptych.encoders.hashing import HashingEncoder
from triptych.retrieval.collection import Collection
from triptych.retrieval.rag.retriever import Retriever

FILTERS = """# Filters

A filter says which items an answer may hold. See [the limits](sub/limits.html#most).

![a red square](pictures/red.png)

## Dates

Dates are text in ISO form and compare as they should.
"""
LIMITS = """<h1>Limits</h1><p>Nothing much here.</p><h2 id="most">The most</h2>
<p>Thirty-two levels at most.</p><img src="../pictures/blue.png" alt="a blue square">"""


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A folder of three documents with three pictures: Markdown, HTML and PDF."""
    folder = tmp_path / "handbook"
    (folder / "pictures").mkdir(parents=True)
    (folder / "sub").mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (64, 64), name).save(folder / "pictures" / f"{name}.png")
    (folder / "filters.md").write_text(FILTERS)
    (folder / "sub/limits.html").write_text(LIMITS)
    pages = ["The engine room\nsteam and coal", "The bridge\nwheel and compass " * 150]
    green = Image.new("RGB", (64, 48), "green")
    (folder / "ship.pdf").write_bytes(pdfs.text_pdf(pages, picture=green))
    return folder


@pytest.fixture
def retriever() -> Iterator[Retriever]:
    with Collection.open(":memory:", embedder=HashingEncoder()) as collection:
        yield Retriever(collection)
