"""Which piece of a passage to show where not all of it fits: that with the words of the question.

A word counts the more, the rarer it is in the passage, as in an inverse document frequency: in a
table of prices the number of the one part that is asked for, not the "price" of all of them.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from triptych.index.sqlite.words import ALPHABETIC, SYLLABIC
from triptych.retrieval.rag.split import SENTENCE

# without spaces two syllables or four letters stand for a word, as in index/sqlite/words.py
_WORD = re.compile(rf"(?=([{SYLLABIC}]{{2}}|[{ALPHABETIC}]{{4}}))|[^\W{SYLLABIC}{ALPHABETIC}]+")


def best_window(text: str, question: str, starts: Sequence[int], length: int) -> int:
    """Return the token that a window of `length` tokens begins with.

    `starts` are the characters at which the tokens begin. A window begins with a sentence or a
    line, unless it is the last; of equally good ones the first of all, else the one in the middle.
    """
    asked = {word for _, word in _words(question)}
    said = [(at, word) for at, word in _words(text) if word in asked]
    counts = Counter(word for _, word in said)
    weight_T = np.zeros(len(starts) + 1)
    for at, word in said:
        weight_T[max(1, bisect_right(starts, at))] += 1 / counts[word]
    before_T = np.cumsum(weight_T)
    last = max(0, len(starts) - length)
    begins = {bisect_left(starts, match.end()) for match in SENTENCE.finditer(text)}
    first_W = np.array(sorted({0, last, *(at for at in begins if at < last)}))
    held_W = before_T[np.minimum(first_W + length, len(starts))] - before_T[first_W]
    best_W = first_W[held_W > held_W.max() - 1e-9]
    return 0 if best_W[0] == 0 else int(best_W[len(best_W) // 2])


def _words(text: str) -> Iterator[tuple[int, str]]:
    for match in _WORD.finditer(text):
        yield match.start(), (match[1] or match[0]).casefold()
