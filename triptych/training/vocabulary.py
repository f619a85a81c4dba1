"""Whole words of other languages as pieces of their own, beside those that a tokenizer has.

A word in one piece begins as what it means in English: its row is the mean of its meanings' rows.
One in five pieces, of which each is part of a hundred other words, the tower's blocks would have to
put together, and they are busy with English. A word that is read right in several needs none.

V pieces, N new ones, D width of the tower, M embedding width.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from triptych.encoders.base import unit_rows
from triptych.training.tokenizer import FIRST_PIECE, START, score
from triptych.training.words import Word
from triptych.types import Matrix

LONGEST = 20  # characters
_TRIED = 4  # times the pieces wanted: many words have one, or share it
UNSPACED = ("zh", "zh-hant", "ja", "th")  # a word begins anywhere in a text


Read: TypeAlias = Callable[[Sequence[str]], Matrix]
"""Texts to unit rows, by the model that is to be taught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A piece to be, how much it would be worth, and what it means by how much."""

    chance: float
    english: Mapping[str, float]


def extended(
    tokenizer: Tokenizer,
    words_VD: Tensor,
    *,
    words: Iterable[tuple[str, Word, float]],
    english: Collection[str],
    most: int,
    read: Read,
) -> tuple[Tokenizer, Tensor]:
    """Return a tokenizer with up to `most` more pieces, and the table with a row for each of them.

    `words` are (language, word, how likely it is drawn): the likeliest get a piece, first those
    that `read` gives a vector far from that of their meaning. None is used in a text of `english`,
    so that these stay what they were.
    """
    likeliest = sorted(words, key=lambda each: -each[2])[: _TRIED * most]
    cut = [*_cut(tokenizer, likeliest)]
    entries = _entries(cut, _needs(cut, read)) if cut else {}
    ranked = sorted(entries, key=lambda piece: (-entries[piece].chance, piece))
    spare = ranked[: most + most // 8]
    met = _pieces_of(with_pieces(tokenizer, spare), english)
    chosen = [piece for piece in spare if piece not in met][:most]
    new_ND = _rows(tokenizer, words_VD, [entries[piece] for piece in chosen])
    return with_pieces(tokenizer, chosen), torch.cat([words_VD, new_ND])


def _cut(
    tokenizer: Tokenizer, words: Sequence[tuple[str, Word, float]]
) -> Iterator[tuple[str, Word, float]]:
    """Yield what could be a piece, with its word: single words that take several so far."""
    texts = [tokenizer.normalizer.normalize_str(word.text) for _, word, _ in words]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    for text, (language, word, chance), pieces in zip(texts, words, encoded, strict=True):
        several = sum(piece != START for piece in pieces.tokens) > 1
        if several and len(text) <= LONGEST and _is_one(tokenizer, text):
            yield text if language in UNSPACED else START + text, word, chance


def _needs(cut: Sequence[tuple[str, Word, float]], read: Read) -> Matrix:
    """Return need_N, (1 - cos) ** 2: 0 for a word that has the vector of what it means."""
    english = list(dict.fromkeys(each for _, word, _ in cut for each in word.english))
    known = dict(zip(english, read(english), strict=True))
    meant_NM = np.stack(
        [sum(known[each] / (at + 1) for at, each in enumerate(word.english)) for _, word, _ in cut]
    )
    read_NM = read([word.text for _, word, _ in cut])
    need_N: Matrix = np.square(1 - (read_NM * unit_rows(meant_NM)).sum(axis=1))
    return need_N


def _entries(cut: Sequence[tuple[str, Word, float]], need_N: Matrix) -> dict[str, Entry]:
    chances: defaultdict[str, float] = defaultdict(float)
    english: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (piece, word, chance), need in zip(cut, need_N.tolist(), strict=True):
        chances[piece] += chance * need
        for at, meaning in enumerate(word.english):
            english[piece][meaning] += chance * need / (at + 1)
    return {
        piece: Entry(chance=chance, english=english[piece])
        for piece, chance in chances.items()
        if chance > 0
    }


def with_pieces(tokenizer: Tokenizer, pieces: Iterable[str]) -> Tokenizer:
    """Return a tokenizer that has these pieces after its own."""
    described = json.loads(tokenizer.to_str())
    described["model"]["vocab"] += [[piece, score(piece)] for piece in pieces]
    return Tokenizer.from_str(json.dumps(described))


def _is_one(tokenizer: Tokenizer, text: str) -> bool:
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) == 1


def _pieces_of(tokenizer: Tokenizer, texts: Collection[str]) -> set[str]:
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return {piece for item in encoded for piece in item.tokens}


def _rows(tokenizer: Tokenizer, words_VD: Tensor, entries: Iterable[Entry]) -> Tensor:
    """As long as its meanings' rows are in the mean, as the mean of several would be short."""
    rows = []
    for entry in entries:
        means, lengths = [], []
        for meaning, weight in entry.english.items():
            ids = tokenizer.encode(meaning, add_special_tokens=False).ids
            rows_ND = words_VD[[piece for piece in ids if piece >= FIRST_PIECE] or ids]
            means.append(weight * rows_ND.mean(dim=0))
            lengths.append(weight * rows_ND.norm(dim=-1).mean())
        mean_D = torch.stack(means).sum(dim=0)
        length = torch.stack(lengths).sum() / sum(entry.english.values())
        rows.append(mean_D / mean_D.norm() * length)
    return torch.stack(rows) if rows else words_VD[:0]
