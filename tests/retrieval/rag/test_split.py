"""Passages: nothing is lost, nothing too long, and the cuts lie where a reader would cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidInput
from triptych.retrieval.rag.document import Heading, Page
from triptych.retrieval.rag.split import Span, SplitConfig, passages
from triptych.retrieval.rag.tokens import count_tokens, token_spans

TEXTS = st.text(st.sampled_from("ab .,\n中😀#é!"), max_size=300)
SIZES = st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 2)))


@given(TEXTS, SIZES, st.sets(st.integers(0, 300)))
def test_every_token_is_in_a_passage_and_none_is_too_long(
    text: str, size: tuple[int, int], breaks: set[int]
) -> None:
    config = SplitConfig(size=size[0], overlap=size[1])
    places = tuple(sorted(at for at in breaks if at <= len(text)))
    found = list(passages(Page(number=1, text=text, breaks=places), config))
    tokens = token_spans(text).tolist()
    for start, end in tokens:
        assert any(span.start <= start and end <= span.end for span in found)
    for span in found:
        inside = [one for one in tokens if span.start <= one[0] and one[1] <= span.end]
        letters = {start for start, _ in inside}  # an emoji is several tokens in one place
        assert 0 < len(letters) <= config.size
    assert [span.start for span in found] == sorted(span.start for span in found)
    assert len(found) <= len(tokens)


def test_a_passage_is_two_segments_and_overlaps_the_next() -> None:
    text = "word " * 3000
    found = list(passages(Page(number=None, text=text)))
    assert all(count_tokens(text[span.start : span.end]) <= 508 for span in found)
    for one, other in pairwise(found):
        shared = text[other.start : one.end]
        assert 32 <= count_tokens(shared) <= 64


def test_it_ends_before_a_heading_without_overlap_else_after_a_sentence() -> None:
    text = "one two three four. five six seven.\nTitle\neight nine ten eleven twelve"
    title = text.index("Title")
    page = Page(number=None, text=text, headings=(Heading(start=title, level=1, text="Title"),))
    first, second = passages(page, SplitConfig(size=10, overlap=3))
    assert text[first.start : first.end] == "one two three four. five six seven."
    assert second.start == title
    cut = next(passages(Page(number=None, text=text), SplitConfig(size=7, overlap=2)))
    assert text[cut.start : cut.end] == "one two three four."


@pytest.mark.parametrize(
    "sentence",
    ["彼は「今日はいい天気ですね。」", "他说：“今天天气很好。”", "『本当？』", "क्या यह सच है। "],
)
def test_a_sentence_ends_after_the_quotes_that_it_closes(sentence: str) -> None:
    text = sentence * 9
    first, *_ = passages(Page(number=None, text=text), SplitConfig(size=24, overlap=8))
    assert first.end < len(text.strip())
    assert text[: first.end].strip().endswith(sentence.strip())


def test_writing_without_tokens_of_its_own_is_cut_too() -> None:
    text = "😀" * 1000  # four bytes, four tokens each
    found = list(passages(Page(number=None, text=text)))
    assert max(span.end - span.start for span in found) <= 508 // 4 + 1
    assert found[0].start == 0 and found[-1].end == 1000


def test_blank_pages_have_no_passage() -> None:
    assert list(passages(Page(number=1, text=" \n\t "))) == []
    assert list(passages(Page(number=1, text="x"))) == [Span(0, 1)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 6), (10, -1)])
def test_nonsense_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(InvalidInput, match="at most half"):
        SplitConfig(size=size, overlap=overlap)
