"""Pages into passages: windows of tokens that overlap, cut where a reader would.

A window of 508 tokens is two segments of the text tower's 256, which it pools; what lies past 512
is another passage (sliding window with the best passage counting, MaxP: Dai and Callan 2019).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from triptych.errors import InvalidInput
from triptych.retrieval.rag.document import Page
from triptych.retrieval.rag.tokens import token_spans

SENTENCE = re.compile(r"[.!?…:;؟।]['\")\]»”]*\s+|[。！？；｡][」』）”’】〕》〉]*|\n")
"""What ends a sentence or a line."""

SEGMENT = 254
"""Tokens that the text tower reads at once: 256, less two marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """In tokens of the default model."""

    size: int = 2 * SEGMENT
    overlap: int = 64

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap <= self.size or self.size < 1:
            raise InvalidInput(
                f"Got passages of {self.size} tokens that overlap by {self.overlap}, "
                "expected 1 or more, and at most half of them in the overlap."
            )


class Span(NamedTuple):
    """A passage of a page: `page.text[start:end]`."""

    start: int
    end: int


def passages(page: Page, config: SplitConfig | None = None) -> Iterator[Span]:
    """Yield passages that together hold every token of the page, none of more than `size`.

    A passage ends before a heading where one stands in the window's second half, else before a
    block, else after a sentence, else after a token. The next one goes back by at most `overlap`,
    to the beginning of a block or sentence if there is one; before a heading it does not.
    """
    config = config or SplitConfig()
    tokens = token_spans(page.text)
    starts, ends = tokens[:, 0].tolist(), tokens[:, 1].tolist()
    headings = [heading.start for heading in page.headings]
    sentences = [match.end() for match in SENTENCE.finditer(page.text)]
    first = 0
    while first < len(starts):
        last = first + config.size  # the first token outside
        if last >= len(starts):
            yield Span(starts[first], ends[-1])
            return
        middle = starts[first + config.size // 2]
        cut, clean = starts[last], False
        for places, is_heading in ((headings, True), (page.breaks, False), (sentences, False)):
            found = _last_in(places, middle, starts[last])
            if found is not None:
                cut, clean = found, is_heading
                break
        # letters of several tokens (an emoji's bytes) share one place: never cut inside
        after = max(bisect_left(starts, cut), first + 1)
        yield Span(starts[first], ends[after - 1])
        first = after if clean else _back(first, after, starts, config, page.breaks, sentences)


def _back(
    first: int,
    after: int,
    starts: list[int],
    config: SplitConfig,
    breaks: tuple[int, ...],
    sentences: list[int],
) -> int:
    """Return the token that the next passage begins with, when this one ended before `after`."""
    lowest = max(after - config.overlap, first + 1)
    if lowest >= after:
        return after
    for places in (breaks, sentences):
        at = bisect_left(places, starts[lowest])
        if at < len(places) and places[at] < starts[after]:
            return max(bisect_left(starts, places[at]), lowest)
    return lowest


def _last_in(places: tuple[int, ...] | list[int], low: int, high: int) -> int | None:
    at = bisect_left(places, high + 1)
    return places[at - 1] if at and places[at - 1] > low else None
