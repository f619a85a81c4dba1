"""Where tokens begin and end: the measure of a passage and of a budget.

It is the default model's tokenizer whatever model a collection has, so that a folder is cut in one
way, here and on a server. It knows every writing; a language model's own count differs by some
tenths, for which `count_tokens` can be given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triptych.encoders.onnx import DEFAULT_FOLDER
from triptych.encoders.text_reader import read_tokenizer

CountTokens = Callable[[str], int]


def token_spans(text: str) -> NDArray[np.int64]:
    """Return where each token begins and ends, in characters: an array of tokens x 2."""
    found = _tokenizer().encode(text, add_special_tokens=False).offsets
    spans: list[tuple[int, int]] = []
    for (start, end), same in groupby(found):
        count = len(list(same))
        width = end - start
        if count == 1 or width == 1:
            spans += [(start, end)] * count
            continue
        # bytes of letters that have no token of their own: all are said to span the whole run
        for at in range(count):
            letter = start + at * width // count
            spans.append((letter, letter + 1))
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def count_tokens(text: str) -> int:
    """Return how many tokens the text has."""
    return len(_tokenizer().encode(text, add_special_tokens=False).ids)


@cache
def _tokenizer() -> Tokenizer:
    return read_tokenizer(DEFAULT_FOLDER)
