"""Whole words of other languages as pieces of their own, beside those that a tokenizer has.

A word in one piece begins as what it means in English: its row is the mean of its meanings' rows.
One in five pieces, of which each is part of a hundred other words, the tower's blocks would have to
put together, and they are busy with English.

V pieces, N new ones, D width of the tower.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from triptych.training.tokenizer import FIRST_PIECE, START, score
from triptych.training.words import Word

LONGEST = 20  # characters
_TRIED = 8  # times the pieces wanted: many words have one, or share it
UNSPACED = ("zh", "zh-hant", "ja", "th")  # a word begins anywhere in a text


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A piece to be, how likely a training draws it, and what it means by how much."""

    chance: float
    english: Mapping[str, float]


def extended(
    tokenizer: Tokenizer,
    words_VD: Tensor,
    *,
    words: Iterable[tuple[str, Word, float]],
    english: Collection[str],
    most: int,
) -> tuple[Tokenizer, Tensor]:
    """Return a tokenizer with up to `most` more pieces, and the table with a row for each of them.

    `words` are (language, word, how likely it is drawn): the likeliest get a piece. None is used in
    a text of `english`, so that these stay what they were.
    """
    likeliest = sorted(words, key=lambda each: -each[2])[: _TRIED * most]
    entries = candidates(tokenizer, likeliest)
    ranked = sorted(entries, key=lambda piece: (-entries[piece].chance, piece))
    spare = ranked[: most + most // 8]
    met = _pieces_of(with_pieces(tokenizer, spare), english)
    chosen = [piece for piece in spare if piece not in met][:most]
    new_ND = _rows(tokenizer, words_VD, [entries[piece] for piece in chosen])
    return with_pieces(tokenizer, chosen), torch.cat([words_VD, new_ND])


def candidates(tokenizer: Tokenizer, words: Sequence[tuple[str, Word, float]]) -> dict[str, Entry]:
    """Return what could be a piece: single words that take several so far."""
    texts = [tokenizer.normalizer.normalize_str(word.text) for _, word, _ in words]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    chances: defaultdict[str, float] = defaultdict(float)
    english: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for text, (language, word, chance), pieces in zip(texts, words, encoded, strict=True):
        several = sum(piece != START for piece in pieces.tokens) > 1
        if several and len(text) <= LONGEST and _is_one(tokenizer, text):
            piece = text if language in UNSPACED else START + text
            chances[piece] += chance
            for at, meaning in enumerate(word.english):
                english[piece][meaning] += chance / (at + 1)
    return {
        piece: Entry(chance=chance, english=english[piece]) for piece, chance in chances.items()
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
