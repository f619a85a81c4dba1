"""The tokenizer: MiniLM's words, pieces for other languages, and bytes for all the rest.

MiniLM's own tokenizer takes the longest piece first. Here every piece costs nearly the same, so
that the fewest pieces win, and English words keep the piece, and the vector, that they had.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

UNKNOWN = "[UNK]"
SPECIALS = ("[PAD]", "[CLS]", "[SEP]", UNKNOWN)
FIRST_PIECE = len(SPECIALS) + 256  # what comes before are bytes
START = "▁"
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltTokenizer:
    """A tokenizer, and the row of MiniLM's table that each of its pieces came from, or -1."""

    tokenizer: Tokenizer
    origins_V: NDArray[np.int64]


def build(*, wordpieces: Sequence[str], corpus: Iterable[str], num_new: int) -> BuiltTokenizer:
    """Join MiniLM's pieces (in its table's order), up to `num_new` learnt ones, and all bytes."""
    known = dict(_adopted(wordpieces))
    new = [piece for piece in _learn(corpus, size=3 * num_new) if piece not in known][:num_new]
    fixed = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*fixed, *known, *new]
    # the far lower score keeps a byte from ever beating a piece that knows the character
    scored = [(piece, -60.0 if i < len(fixed) else score(piece)) for i, piece in enumerate(pieces)]
    specials = {word: row for row, word in enumerate(wordpieces) if word in SPECIALS}
    origins = [specials[piece] if piece in SPECIALS else known.get(piece, -1) for piece in pieces]
    return BuiltTokenizer(
        tokenizer=_assemble(scored), origins_V=np.asarray(origins, dtype=np.int64)
    )


def _adopted(wordpieces: Sequence[str]) -> Iterator[tuple[str, int]]:
    for row, word in enumerate(wordpieces):
        if word.startswith("[") and word.endswith("]") and len(word) > 2:
            continue  # specials and [unused...]
        yield (word[2:] if word.startswith("##") and len(word) > 2 else START + word), row


def score(piece: str) -> float:
    """Return a piece's logarithm of chance: the fewest pieces win, then the longest."""
    # all pieces cost about 10; of two ways with as many pieces, the one with the longest piece wins
    return -10.0 + 0.002 * min(len(piece), 20) ** 2


def _assemble(scored: Sequence[tuple[str, float]]) -> Tokenizer:
    model = models.Unigram(list(scored), unk_id=SPECIALS.index(UNKNOWN), byte_fallback=True)
    tokenizer = _dressed(Tokenizer(model))
    tokenizer.add_special_tokens(list(SPECIALS))
    ends = [(name, SPECIALS.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement=START, prepend_scheme="always")]
    )
    return tokenizer


def _dressed(tokenizer: Tokenizer) -> Tokenizer:
    # no accents are stripped: Hindi and Vietnamese are not words without their marks
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Metaspace(replacement=START, prepend_scheme="always", split=False),
        ]
    )
    return tokenizer


def _learn(corpus: Iterable[str], *, size: int) -> list[str]:
    """Single characters first, then pieces in the order in which merging finds them."""
    tokenizer = _dressed(Tokenizer(models.BPE(unk_token=UNKNOWN)))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[UNKNOWN],
        min_frequency=3,
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in ranked if piece != UNKNOWN]


def borrow_rows(
    pairs: Iterable[tuple[str, str]],
    *,
    tokenizer: Tokenizer,
    origins_V: NDArray[np.int64],
    table_VD: NDArray[np.float32],
) -> NDArray[np.float32]:
    """A row for every new piece: that of the English pieces that it is seen with in translations.

    `pairs` are (foreign, English); `table_VD` is MiniLM's. Pieces never seen get the mean row.
    """
    seen: Counter[int] = Counter()
    english_seen: Counter[int] = Counter()
    together: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for foreign, english in pairs:
        targets = {piece for piece in _inner(tokenizer, english) if origins_V[piece] >= 0}
        english_seen.update(targets)
        for piece in _inner(tokenizer, foreign):
            seen[piece] += 1
            together[piece].update(targets)
    rows_VD = table_VD[np.maximum(origins_V, 0)].copy()
    mean_D = table_VD[origins_V[origins_V >= 0]].mean(axis=0)
    for piece in map(int, np.flatnonzero(origins_V < 0)):
        rows_VD[piece] = mean_D
        found = together.get(piece)
        if found:
            # squared Dice: a word that is there whenever the piece is, and seldom otherwise
            weights = {t: (2 * n / (seen[piece] + english_seen[t])) ** 2 for t, n in found.items()}
            best = sorted(weights, key=lambda t: -weights[t])[:4]
            total = math.fsum(weights[t] for t in best)
            rows_VD[piece] = sum(weights[t] / total * table_VD[origins_V[t]] for t in best)
    return rows_VD


def _inner(tokenizer: Tokenizer, text: str) -> set[int]:
    return {
        token
        for token in tokenizer.encode(text, add_special_tokens=False).ids
        if token >= FIRST_PIECE
    }
