"""The graph of a text: who stands near whom, and which things a relation joins.

No parser: phrases are runs of content words, the last word of a run is its head (as in English),
and neighbouring heads are joined across the function words between them. A language that the list
of function words does not know gets long phrases and links to neighbours.

E links, T pieces of a text, K kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

_START = "▁"
Kind = Literal["near", "piece", "phrase", "across"]
KINDS: tuple[Kind, ...] = ("near", "piece", "phrase", "across")

# fmt: off
FUNCTION_WORDS = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "some", "of", "to", "in", "on", "at",
    "by", "for", "from", "with", "without", "within", "into", "onto", "over", "under", "above",
    "below", "beneath", "beside", "besides", "between", "behind", "before", "after", "near",
    "around", "against", "along", "across", "through", "inside", "outside", "upon", "off", "up",
    "down", "and", "or", "but", "while", "as", "than", "is", "are", "was", "were", "be", "been",
    "being", "has", "have", "had", "there", "its", "his", "her", "their", "it", "he", "she",
    "they", "who", "which",
))
# fmt: on
# a side is a relation before these ("left of", "next to"), else it names a thing ("the left shoe")
_SIDES = frozenset(("left", "right", "top", "bottom", "front", "back", "side", "next", "close"))
_AFTER_SIDES = frozenset(("of", "to"))


class Link(NamedTuple):
    """From one piece to another, and the pieces start:stop that lie between them."""

    source: int
    target: int
    kind: Kind
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    at: int  # its first piece
    end: int  # after its last


def word_links(pieces: Sequence[str], *, window: int = 2) -> list[Link]:
    """Return the links of a text of word pieces; "[...]" is no word.

    Either "##" marks the pieces that go on a word, or "▁" those that start one.

    Each link comes in both directions. "a red circle left of a square" gives, beside neighbours,
    red-circle (phrase) and circle-square (across "left of a").
    """
    words = list(_words(pieces))
    pairs = [
        *_near(words, window),
        *((word.at, at, "piece") for word in words for at in range(word.at + 1, word.end)),
        *_by_phrase(words),
    ]
    links = []
    for first, second, kind in pairs:
        start = min(first + 1, second)
        links += [
            Link(first, second, kind, start, second),
            Link(second, first, kind, start, second),
        ]
    return links


def _words(pieces: Sequence[str]) -> Iterator[_Word]:
    starts_are_marked = any(piece.startswith(_START) for piece in pieces)
    at = 0
    while at < len(pieces):
        end = at + 1
        if not _is_special(pieces[at]):
            while end < len(pieces) and _goes_on(pieces[end], starts_are_marked):
                end += 1
            text = "".join(piece.removeprefix("##") for piece in pieces[at:end])
            yield _Word(text.removeprefix(_START).lower(), at, end)
        at = end


def _goes_on(piece: str, starts_are_marked: bool) -> bool:
    if starts_are_marked:
        return not piece.startswith(_START) and not _is_special(piece)
    return piece.startswith("##")


def _is_special(piece: str) -> bool:
    return len(piece) > 2 and piece.startswith("[") and piece.endswith("]")


def _near(words: Sequence[_Word], window: int) -> Iterator[tuple[int, int, Kind]]:
    for first, word in enumerate(words):
        for other in words[first + 1 : first + 1 + window]:
            yield word.at, other.at, "near"


def _by_phrase(words: Sequence[_Word]) -> Iterator[tuple[int, int, Kind]]:
    phrases = list(_phrases(words))
    for phrase in phrases:
        yield from ((word.at, phrase[-1].at, "phrase") for word in phrase[:-1])
    for one, other in pairwise(phrases):
        yield one[-1].at, other[-1].at, "across"


def _phrases(words: Sequence[_Word]) -> Iterator[list[_Word]]:
    phrase: list[_Word] = []
    for at, word in enumerate(words):
        if _joins(words, at):
            if phrase:
                yield phrase
            phrase = []
        else:
            phrase.append(word)
    if phrase:
        yield phrase


def _joins(words: Sequence[_Word], at: int) -> bool:
    text = words[at].text
    if text in _SIDES:
        return at + 1 < len(words) and words[at + 1].text in _AFTER_SIDES
    return text in FUNCTION_WORDS or not any(letter.isalnum() for letter in text)
