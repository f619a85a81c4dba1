"""What a PDF does to PDFium, it does in a process of its own: hanging, crashing, eating memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.retrieval.rag import pdfs
from triptych.retrieval.rag import pdf
from triptych.retrieval.rag.document import DocumentError, DocumentLimits, Page
from triptych.retrieval.rag.pdf import read_pdf
from triptych.retrieval.rag.pdf_wire import packed, unpacked

GOOD = pdfs.text_pdf(["one", "two"], picture=Image.new("RGB", (64, 48), "red"))


def refusal(data: bytes, limits: DocumentLimits | None = None) -> str:
    with pytest.raises(DocumentError) as error:
        list(read_pdf(data, limits or DocumentLimits(), pytest.fail))
    return error.value.code


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(one) for one in listed.split()}


def test_one_that_takes_too_long_is_stopped() -> None:
    quick, slow = (pdfs.nested_pdf(levels=levels, times=12) for levels in (1, 8))
    limits, before = DocumentLimits(max_seconds=0.3), children()
    assert [page.number for page in read_pdf(quick, limits, pytest.fail)] == [1]
    assert len(slow) < 3_000  # 400 million words
    assert refusal(slow, limits) == "document_too_slow"
    assert children() == before


def test_one_that_takes_too_much_memory_is_stopped() -> None:
    large = pdfs.text_pdf(["x"], picture=Image.new("RGB", (4_000, 4_000)))
    (page,) = read_pdf(large, DocumentLimits(), pytest.fail)
    assert page.figures[0].picture is not None
    assert page.figures[0].picture.size == (1024, 1024)  # no larger than it is ever looked at
    tight = DocumentLimits(max_memory=150 << 20)
    assert refusal(large, tight) in ("document_too_large", "document_crashed")
    assert len(list(read_pdf(GOOD, tight, pytest.fail))) == 2


@pytest.mark.parametrize(
    "does",
    [
        "import os; os.abort()",
        "import sys; sys.exit()",
        "import sys; sys.stdout.buffer.write(b'\\xff' * 99)",
        "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\x02[]')",
        """import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\x1c["page", null, [[-1, 9999]]]')""",
    ],
    ids=["aborts", "says nothing", "says too much", "says garbage", "lies"],
)
def test_a_reader_that_crashes_or_lies_costs_its_document(
    does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "_CHILD", does)
    assert refusal(GOOD * 100) == "document_crashed"  # more than a pipe holds


def test_a_reader_that_sleeps_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_CHILD", "import sys, time; sys.stdin.read(); time.sleep(60)")
    monkeypatch.setattr(pdf, "_START", 0.2)
    started = time.monotonic()
    assert refusal(GOOD, DocumentLimits(max_seconds=0.01)) == "document_too_slow"
    assert time.monotonic() - started < 30


def test_whoever_stops_reading_leaves_nothing_behind() -> None:
    before = children()
    pages = read_pdf(pdfs.text_pdf(["x" * 99] * 2_000), DocumentLimits(), pytest.fail)
    assert next(pages).number == 1
    assert len(children() - before) == 1
    pages.close()  # type: ignore[attr-defined]
    assert children() == before


def test_a_page_goes_through_the_pipe_as_it_is() -> None:
    (page, _) = read_pdf(GOOD, DocumentLimits(), pytest.fail)
    sent = packed("page", page)
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        at += count
        return sent[at - count : at]

    kind, again = unpacked(read)
    assert (kind, at) == ("page", len(sent)) and isinstance(again, Page)
    assert (again.number, again.text, again.breaks) == (page.number, page.text, page.breaks)
    (figure,), (sent_figure,) = again.figures, page.figures
    assert figure.picture == sent_figure.picture and figure.caption == sent_figure.caption
