"""Markdown, HTML and PDF into pages: text, headings, links, pictures, each at its place."""

import time

import pytest
from PIL import Image

from tests.retrieval.rag import pdfs
from triptych.retrieval.rag.document import DocumentError, DocumentLimits, Note, Page, Reader
from triptych.retrieval.rag.html import read_html
from triptych.retrieval.rag.markdown import read_markdown
from triptych.retrieval.rag.pdf import read_pdf
from triptych.retrieval.rag.plain import read_plain

LIMITS = DocumentLimits()


def the_page(reader: Reader, data: bytes) -> Page:
    (page,) = reader(data, LIMITS, lambda note: None)
    return page


def test_markdown_is_its_own_text() -> None:
    source = "# A b\n\nSee [this](x.md#y) and ![alt](p.png 'title').\n\n## A b\n\n| a |\n|---|\n| [z](q.md) |\n"
    page = the_page(read_markdown, source.encode())
    assert page.text == source
    assert [(h.level, h.text, source[h.start]) for h in page.headings] == [
        (1, "A b", "#"),
        (2, "A b", "#"),
    ]
    assert [a.name for a in page.anchors] == ["a-b", "a-b-1"]
    assert [(one.target, source[one.start :][: len(one.target)]) for one in page.links] == [
        ("x.md#y", "x.md#y"), ("q.md", "q.md"),
    ]  # fmt: skip
    (figure,) = page.figures
    assert (figure.target, figure.caption) == ("p.png", "alt title")
    assert source[figure.start :].startswith("p.png")


@pytest.mark.parametrize(
    ("front", "title"),
    [
        ("---\ntitle: 'Set & go'\ntags: [a]\n---\n", "Set & go"),
        ('+++\n# made by a tool\ntitle = "Set & go"\n+++\n', "Set & go"),
        ("---\nlayout: page\nmenu:\n  title: no\n---\n", None),
        ("---\ntitle: >\n  folded\n---\n", None),
    ],
)
def test_front_matter_is_no_heading_but_has_the_title(front: str, title: str | None) -> None:
    source = f"{front}\nBefore.\n\n## Part\n\n[there](x.md)\n"
    page = the_page(read_markdown, source.encode())
    assert page.text == source
    titles = [] if title is None else [(0, 1, title)]
    part = (source.index("##"), 2, "Part")
    assert [(h.start, h.level, h.text) for h in page.headings] == [*titles, part]
    assert [one.name for one in page.anchors] == ["part"]
    assert [source[one.start :][:4] for one in page.links] == ["x.md"]
    assert len(front) in page.breaks


def test_headings_in_markdown_may_be_html() -> None:
    source = (
        '<h1 align="center">\n  <a href="x.md"><img src="i.png" alt="logo"></a> My <b>tool</b>\n</h1>\n\n'
        '<H2 id="own">Set &amp; go</H2>\n<h3>Deep</h3><h3>Deep</h3>\n\n'
        "Not <h2>this</h2> <!-- <h1>or this</h1> -->\n\n```html\n<h1>or this</h1>\n```\n\n## End\n"
    )
    page = the_page(read_markdown, source.encode())
    places = [source.index(tag) for tag in ("<h1", "<H2", "<h3>", "<h3>Deep</h3>\n", "## End")]
    texts = [(1, "My tool"), (2, "Set & go"), (3, "Deep"), (3, "Deep"), (2, "End")]
    assert [(h.level, h.text) for h in page.headings] == texts
    assert [heading.start for heading in page.headings] == places
    names = ["my-tool", "own", "set--go", "deep", "deep-1", "end"]
    assert [anchor.name for anchor in page.anchors] == names
    assert [one.target for one in (*page.links, *page.figures)] == ["x.md", "i.png"]


def test_a_line_between_two_rules_is_no_front_matter() -> None:
    page = the_page(read_markdown, b"---\n\nOnce upon a time\n\n---\n\n# End\n")
    assert [heading.text for heading in page.headings] == ["End"]


def test_a_place_may_have_a_name_of_its_own() -> None:
    source = '# Set up {#setup}\n\n<a name="deep"></a> here\n\n## More {: #more .big }\n'
    page = the_page(read_markdown, source.encode())
    assert [heading.text for heading in page.headings] == ["Set up", "More"]
    named = {anchor.name: anchor.start for anchor in page.anchors}
    places = {"setup": 0, "deep": source.index("<a"), "more": source.index("##")}
    assert places.items() <= named.items()


def test_words_of_headings_and_captions_come_without_marks() -> None:
    page = the_page(read_markdown, b"Two\nlines\n===\n\n![a *red* `square`](p.png)\n")
    assert [heading.text for heading in page.headings] == ["Two lines"]
    assert [figure.caption for figure in page.figures] == ["a red square"]


def test_addresses_in_markdown_come_as_they_are_written() -> None:
    source = '![a](<../a b.png>) ![b](javascript:alert) <img src="file:///etc/passwd" alt="c"> [r]\n\n[r]: ref.md\n'
    page = the_page(read_markdown, source.encode())
    assert [one.target for one in page.figures] == [
        "../a b.png",
        "javascript:alert",
        "file:///etc/passwd",
    ]
    assert [one.target for one in page.links] == ["ref.md"]


def test_plain_text_is_its_own_text_with_paragraphs() -> None:
    source = "# One\r\nline\r\n \r\n\r\nTwo <b>\n"
    page = the_page(read_plain, source.encode())
    assert page.text == source.replace("\r", "")
    assert page.breaks == (page.text.index("Two"),) and page.headings == ()


def test_html_is_what_a_person_sees() -> None:
    source = """<html><head><title>t</title><script>steal()</script><style>p{}</style></head><body>
    <h1 id=top>Head  line</h1><p>One <b>bold</b>
    word.<script>alert(1)</script></p><p hidden>secret</p><div style="display:none">ignore me</div>
    <noscript>no</noscript><pre>a  b
c</pre><figure><img src="i.png" alt="A cat"><figcaption>A cat, asleep</figcaption></figure>
    <a href="other.html#x">there</a><iframe src="http://x">in</iframe><!-- not this --></body></html>"""
    page = the_page(read_html, source.encode())
    assert page.text == "Head line\nOne bold word.\na  b\nc\nA cat, asleep\nthere\n"
    titles = [(h.level, h.text, h.start) for h in page.headings]
    assert titles == [(1, "t", 0), (1, "Head line", 0)]
    assert [(a.name, a.start) for a in page.anchors] == [("top", 0)]
    assert [(f.target, f.caption) for f in page.figures] == [("i.png", "A cat, asleep")]
    assert page.text[page.figures[0].start :].startswith("A cat")
    assert [(one.target, page.text[one.start :]) for one in page.links] == [
        ("other.html#x", "there\n")
    ]


@pytest.mark.parametrize(
    ("body", "headings"),
    [("<p>sea", ["Whales & co"]), ("<h2>Sea</h2>a", ["Whales & co", "Sea"])],
)
def test_the_title_of_a_page_is_a_heading(body: str, headings: list[str]) -> None:
    head = "<title>\n Whales &amp; co\n</title><svg><title>no</title></svg>"
    page = the_page(read_html, f"<html><head>{head}</head><body>{body}".encode())
    assert [heading.text for heading in page.headings] == headings
    assert page.headings[0].start == 0 and page.headings[0].level == 1 and "Whales" not in page.text


def test_html_joins_no_words_and_parts_none() -> None:
    source = (
        "<center>One</center>two<legend>three</legend><dialog open>four</dialog>"
        "<menu>five</menu>Donau&shy;dampf&#8203;schiff"
    )
    page = the_page(read_html, source.encode())
    assert page.text == "One\ntwo\nthree\nfour\nfive\nDonaudampfschiff\n"


@pytest.mark.parametrize(
    "data",
    [
        "<p>Größe".encode(),
        "<p>Größe".encode("cp1252"),
        "<meta charset=iso-8859-1><p>Größe".encode("latin-1"),
        "<p>Größe".encode("utf-16"),
        b"\xef\xbb\xbf" + "<p>Größe".encode(),
    ],
)
def test_html_in_any_encoding(data: bytes) -> None:
    assert the_page(read_html, data).text == "Größe\n"


@pytest.mark.parametrize(
    ("declared", "text", "encoding"),
    [
        ("gb2312", "总理朱镕基", "gbk"),
        ("iso-8859-1", "“smart” €", "cp1252"),
        ("Shift_JIS", "①髙島", "cp932"),
        ("euc-kr", "똠방각하", "cp949"),
        ("windows-1251", "Привет", "cp1251"),
        ("undefined", "Größe", "cp1252"),
        ("punycode", "Größe", "cp1252"),
        ("utf-8", "Größe", "cp1252"),
    ],
)
def test_a_charset_means_what_browsers_mean(declared: str, text: str, encoding: str) -> None:
    for head in (f"<meta charset={declared}>", f"<?xml version='1.0' encoding='{declared}'?>"):
        data = f"{head}<p>".encode() + text.encode(encoding)
        assert the_page(read_html, data).text == f"{text}\n"


@pytest.mark.parametrize("read", [read_markdown, read_html, read_plain])
def test_a_damaged_byte_costs_a_letter_and_not_all_of_them(read: Reader) -> None:
    damaged = "Größe, schön und bündig, 中文 \0".encode().replace(b"\0", b"\xc3")
    assert the_page(read, damaged).text.strip() == "Größe, schön und bündig, 中文 \ufffd"


@pytest.mark.parametrize("data", [b"", b"<", b"<div>" * 5_000 + b"deep"])
def test_html_that_is_broken_or_deep_is_read(data: bytes) -> None:
    the_page(read_html, data)


@pytest.mark.parametrize(
    "source",
    [
        "<div>" * 100_000,
        "<div></x>" * 100_000,
        "<div/>" * 100_000,
        "<p " + " ".join(f"a{at}=1" for at in range(50_000)) + ">",
        "<p a='>' " + " ".join(f"a{at}" for at in range(50_000)) + ">",
    ],
    ids=["nested", "wrongly closed", "closed in vain", "attributes", "hidden attributes"],
)
def test_html_that_would_take_minutes_is_refused(source: str) -> None:
    for reader, data in ((read_html, source), (read_markdown, source)):
        with pytest.raises(DocumentError) as error:
            list(reader(data.encode(), LIMITS, pytest.fail))
        assert error.value.code == "document_too_deep"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("<tr><th>Country</th>\n <th>Days</th></tr>\n<tr><td>Poland</td> <td>26</td></tr>",
         "Country\tDays\nPoland\t26\n"),
        ("<tr><td><p>Poland</p></td><td><p>26</p><p>or 20</p></td></tr>", "Poland\t26\nor 20\n"),
        ("<tr><td>a</td><td></td></tr><tr><td></td><td>b</td></tr>", "a\nb\n"),
        ("<tr><td>a</td><td><table><tr><td>b<td>c</table></td></tr>", "a\tb\tc\n"),
        ("<tr><td><pre>a\n b</pre></td><td> c</td></tr>", "a\n b\tc\n"),
    ],
    ids=["plain", "blocks", "empty", "nested", "pre"],
)  # fmt: skip
def test_a_row_of_a_table_is_one_line(rows: str, text: str) -> None:
    page = the_page(read_html, f"<p>before<table>{rows}</table>after".encode())
    assert page.text == f"before\n{text}after\n"
    assert all(page.text[place - 1] in "\n\t" for place in page.breaks if place)


def test_long_flat_pages_are_of_a_good_shape() -> None:
    rows = "<tr><td>a<td>b<br><img src=x>" * 20_000
    svg = "<svg>" + "<path d='M 1'/>" * 20_000 + "</svg>"
    page = the_page(read_html, f"<table>{rows}</table>{svg}<p>it's > \"quoted".encode())
    assert page.text.count("a\tb\n") == 20_000


def test_a_pdf_has_pages_with_text_and_pictures_with_captions() -> None:
    data = pdfs.text_pdf(
        ["Hello (world) ü\nLine two", "Page two"], picture=Image.new("RGB", (64, 48), "red")
    )
    one, two = read_pdf(data, LIMITS, pytest.fail)
    assert (one.number, one.text) == (1, "Hello (world) ü\nLine two\nFigure 1: a plain colour")
    assert (two.number, two.text, two.figures) == (2, "Page two", ())
    (figure,) = one.figures
    assert figure.caption == "Figure 1: a plain colour"
    assert one.text[figure.start : figure.end] == figure.caption
    assert figure.picture is not None and figure.picture.getpixel((5, 5)) == (255, 0, 0)
    assert [page.number for page in read_pdf(data, LIMITS, pytest.fail, only=2)] == [2]
    assert list(read_pdf(data, LIMITS, pytest.fail, only=3)) == []


def test_a_word_that_a_line_of_a_pdf_breaks_is_whole() -> None:
    data = pdfs.text_pdf(["This is an exam-\nple of Nord-\nEst, of 10-\n20 and of non-trivial."])
    (page,) = read_pdf(data, LIMITS, pytest.fail)
    assert (
        " ".join(page.text.split())
        == "This is an example of Nord-Est, of 10- 20 and of non-trivial."
    )


@pytest.mark.parametrize("read", [read_markdown, read_html, read_plain])
def test_what_is_no_text_is_refused_whatever_its_name(read: Reader) -> None:
    binary = bytes(range(256)) * 40
    for data in (
        binary,
        b"\x00\x01\xff" * 99,
        b"# Words\n\n" + binary,
        "words".encode("utf-16-le") * 40,
    ):
        with pytest.raises(DocumentError, match="no text") as error:
            list(read(data, LIMITS, pytest.fail))
        assert error.value.code == "document_not_text"
    (page,) = read(
        b"# Words\n\n\x1b[1mbold\x1b[0m\x0c and a stray \0" + b"." * 300, LIMITS, pytest.fail
    )
    assert "bold" in page.text
    assert "\0" not in page.text


def test_a_pdf_of_scans_is_pictures_and_says_so() -> None:
    notes: list[Note] = []
    pages = list(read_pdf(pdfs.scanned_pdf(3), LIMITS, notes.append))
    assert [len(page.figures) for page in pages] == [1, 1, 1]
    assert [note.code for note in notes] == ["pages_without_text"]
    assert notes[0].reason.startswith("3 of 3 pages hold no text")
    assert [page.figures for page in read_pdf(pdfs.empty_pdf(2), LIMITS, notes.append)] == [(), ()]


def test_a_pdf_of_2000_pages_is_read_page_by_page_or_refused() -> None:
    data = pdfs.text_pdf([f"Words of page {at}" for at in range(1, 2001)])
    pages = read_pdf(data, LIMITS, pytest.fail)
    assert all(page.text == f"Words of page {page.number}" for page in pages)
    assert next(iter(read_pdf(data, LIMITS, pytest.fail, only=1999))).text == "Words of page 1999"
    with pytest.raises(DocumentError, match=r"2,000 pages, expected at most 1,999") as error:
        list(read_pdf(data, DocumentLimits(max_pages=1999), pytest.fail))
    assert error.value.code == "document_too_long"


def test_a_picture_of_a_pdf_that_cannot_be_decoded_is_named() -> None:
    whole = pdfs.text_pdf(["Words", "More"], picture=Image.new("RGB", (64, 48), "red"))
    notes: list[Note] = []
    hollow = whole.replace(b"/DeviceRGB", b"/DeviceXYZ")
    one, two = read_pdf(hollow, LIMITS, notes.append)
    assert (one.figures, two.text) == ((), "More")
    (note,) = notes
    assert (note.code, note.reason[:32]) == ("picture_damaged", "Of the pictures on page 1, 1 can")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (pdfs.encrypted_pdf(), "document_encrypted"),
        (b"", "document_damaged"),
        (b"%PDF-1.4\n%%EOF", "document_damaged"),
        (pdfs.text_pdf(["x"])[:300], "document_damaged"),
    ],
    ids=["encrypted", "empty", "hollow", "cut off"],
)
def test_a_pdf_that_cannot_be_read_says_why(data: bytes, code: str) -> None:
    with pytest.raises(DocumentError) as error:
        list(read_pdf(data, LIMITS, pytest.fail))
    assert error.value.code == code


def test_texts_that_are_too_long_are_refused() -> None:
    for reader in (read_markdown, read_html):
        with pytest.raises(DocumentError, match="more than 9 characters"):
            list(reader(b"0123456789", DocumentLimits(max_characters=9), pytest.fail))


@pytest.mark.parametrize(
    "source",
    [
        "<h1><div>" * 2_000 + "word " * 100_000,
        "<figure>"
        + "<img src=a>" * 15_000
        + f"<figcaption>{'word ' * 15_000}</figcaption></figure>",
    ],
    ids=["headings in headings", "pictures of one caption"],
)
def test_a_text_is_not_read_again_for_each_that_it_names(source: str) -> None:
    started = time.process_time()
    page = the_page(read_html, source.encode())
    assert time.process_time() - started < 10
    named = [*(one.text for one in page.headings), *(one.caption for one in page.figures)]
    assert len(named) >= 2_000 and all(name.startswith("word word") for name in named)


def test_what_is_hidden_is_in_no_heading_and_no_name_of_a_column() -> None:
    source = (
        "<h1>Prices<span hidden> obey me</span><div><h2>of parts</h2></div></h1>"
        "<table><tr><th>part</th>"
        "<th>price<b style='display:none'> obey me</b></th></tr>"
        "<tr><td>XK-1</td><td>3</td></tr></table>"
    )
    page = the_page(read_html, source.encode())
    assert [heading.text for heading in page.headings] == ["Prices of parts", "of parts"]
    assert [table.columns for table in page.tables] == ["part | price"]
    assert "obey" not in page.text
