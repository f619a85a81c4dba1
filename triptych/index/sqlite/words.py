"""Words of the items' text and metadata, ranked by BM25 (SQLite FTS5).

The table holds no text, only where each word stands. Chinese and Japanese have no spaces: instead
of FTS5's trigrams, which cannot find a word of two characters, as most Chinese words are, each
character of such a script is a word of its own and a run of them in a query is a phrase, which
finds any substring. So are Korean (whose particles stick to the words), Thai, Lao, Khmer and
Burmese.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import apsw
import numpy as np

from triptych.index.base import checked_k, ranked
from triptych.types import Metadata, Rows, Vector

SCHEMA = """
CREATE VIRTUAL TABLE words USING fts5(
    text, metadata, content = '', contentless_delete = 1,
    tokenize = "unicode61 remove_diacritics 2 categories 'L* M* N* Co'"
);
INSERT INTO words(words, rank) VALUES ('automerge', 16);
"""

SYLLABIC = (
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "\uac00-\ud7a3"  # Korean syllables
)
ALPHABETIC = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
"""Scripts whose words no space parts, for a class of a regular expression."""

_RUN = re.compile(f"([{SYLLABIC}]+)|([{ALPHABETIC}]+)|[^{SYLLABIC}{ALPHABETIC}\\s]+")
_UNSPACED = re.compile(f"[{SYLLABIC}{ALPHABETIC}]")
_BATCH = 1_000
_LONGEST = 2_000
_MOST_TERMS = 256
"""What is read of a query; a page of text as a query is cut, not an error."""

_SCORED = [("row", np.int64), ("score", np.float32)]

_BETWEEN = " \ue000 "
"""A word of the private use area, so that no phrase runs from one value into the next."""

_JOINERS = (0xAD, 0x200C, 0x200D, *range(0xFE00, 0xFE10))
_MARKS: dict[int, str | None] = dict.fromkeys(
    code
    for code in (*_JOINERS, *range(0x300, 0x3000), *range(0xFE20, 0xFE30))
    # the classes of Hebrew and Arabic vowel points, and of accents; those between shape letters
    if code in _JOINERS or 10 <= (place := unicodedata.combining(chr(code))) <= 36 or place > 200
)
# for Unicode letters of their own; whose keyboard lacks them writes these instead
_LETTERS = _MARKS | str.maketrans(
    {"ı": "i", "ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe"}
)


def insert(connection: apsw.Connection, items: Iterable[tuple[int, str | None, Metadata]]) -> None:
    """Add the words of (row, text, metadata); of the metadata the strings, however deep."""
    connection.executemany(
        "INSERT INTO words(rowid, text, metadata) VALUES (?, ?, ?)",
        (
            (row, _spaced(text) if text else "", _spaced(_strings(metadata)) if metadata else "")
            for row, text, metadata in items
        ),
    )


def drop(connection: apsw.Connection, rows: Sequence[int]) -> None:
    """Forget these rows; what they leave in the file goes with `purge`."""
    connection.executemany("DELETE FROM words WHERE rowid = ?", [(row,) for row in rows])


def purge(connection: apsw.Connection) -> None:
    """Write the table anew without what was dropped; VACUUM then frees the pages."""
    connection.execute("INSERT INTO words(words) VALUES ('optimize')")


def rebuild(connection: apsw.Connection, items: Iterable[tuple[int, str | None, Metadata]]) -> None:
    """Replace all words by those of `items`, which are all that there are."""
    connection.execute("DROP TABLE words")
    connection.execute(SCHEMA)
    waiting = iter(items)
    while batch := list(islice(waiting, _BATCH)):
        insert(connection, batch)


def look_anew(connection: apsw.Connection) -> None:
    """Let FTS5 see what others wrote: its integrity check alone takes that for damage."""
    connection.execute("SELECT rowid FROM words LIMIT 1").fetchall()


def problem(connection: apsw.Connection, rows_N: Rows) -> str | None:
    """Return what is wrong where the words are not those of exactly these rows, ascending."""
    found = connection.execute("PRAGMA integrity_check(words)").fetchall()
    if found != [("ok",)]:
        return "The words contradict each other."
    held_N = _column(connection.execute("SELECT id FROM words_docsize ORDER BY id"))
    missing, extra = np.setdiff1d(rows_N, held_N), np.setdiff1d(held_N, rows_N)
    if not len(missing) and not len(extra):
        return None
    return f"The words of {len(missing)} items are missing, and {len(extra)} without an item exist."


def search(
    connection: apsw.Connection, query: str, k: int, *, allowed: Rows | None = None
) -> tuple[Rows, Vector]:
    """Return rows_K and scores_K: the k best and all that share the last place, the best first.

    Equal ones come in the order of their rows. The query is words, of which one is enough; no
    character of it is an operator. What is written together ("e-mail", a run of Chinese) counts as
    a whole and by its parts. `allowed` restricts the answer to these rows; the scores stay those
    within all items.
    """
    k = checked_k(k, sys.maxsize - 1)
    terms = _terms(query)
    if not terms or (allowed is not None and not len(allowed)):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    # bm25 returns better as lower; the plus keeps FTS5 from running the query once for each row
    sql = "SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ?"
    bound: list[Any] = [" OR ".join(f'"{term}"' for term in terms)]
    if allowed is not None:
        sql += " AND +rowid IN carray(?)"
        bound.append(apsw.carray(np.ascontiguousarray(allowed, dtype=np.int64)))
    rows_K, scores_K = _scored(connection, f"{sql} ORDER BY score DESC LIMIT ?", (*bound, k + 1))
    if len(rows_K) > k and scores_K[k] == scores_K[k - 1]:
        # equal in float32, as what SQLite has is not: it is asked for more, and cut again
        below = np.nextafter(scores_K[k], np.float32(-np.inf))
        rows_K, scores_K = _scored(connection, f"{sql} AND score > ?", (*bound, float(below)))
        is_best = scores_K > below
        rows_K, scores_K = rows_K[is_best], scores_K[is_best]
        k = len(rows_K)
    return ranked(rows_K, scores_K, k)


def textless(connection: apsw.Connection, rows_N: Rows) -> Rows:
    """Return those of the rows that have no text, whatever their metadata say, ascending."""
    if not len(rows_N):  # SQLite takes no array of nothing
        return rows_N
    # FTS5 keeps how many words each column has, a varint for each: the first is the text's
    query = "SELECT id FROM words_docsize WHERE id IN carray(?) AND substr(sz, 1, 1) = x'00' "
    bound = apsw.carray(np.ascontiguousarray(rows_N, dtype=np.int64))
    return _column(connection.execute(f"{query} ORDER BY id", (bound,)))


def _scored(connection: apsw.Connection, sql: str, bound: tuple[Any, ...]) -> tuple[Rows, Vector]:
    found = np.fromiter(connection.execute(sql, bound), dtype=_SCORED)
    return found["row"], found["score"]


def _terms(query: str) -> list[str]:
    """Return the phrases to look for, the first of many; the tokenizer has the last word."""
    terms: dict[str, None] = {}
    query = query[:_LONGEST]
    # the second is how earlier versions wrote these letters into the table
    spellings = dict.fromkeys((_folded(query), _folded(query, _MARKS)))
    for written in " ".join(spellings).lower().split():
        plain = "".join(c if _is_of_words(c) else " " for c in written)
        parts = [part for run in _RUN.finditer(plain) for part in _parts(run)]
        if len(parts) > 1:
            terms[" ".join(_spaced(plain).split())] = None
        terms.update(dict.fromkeys(parts))
    return list(terms)[:_MOST_TERMS]


def _is_of_words(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "Co"  # as in SCHEMA


def _parts(run: re.Match[str]) -> list[str]:
    """Return the word itself, or as phrases the pieces of a run without spaces.

    No dictionary says where its words end: two syllables or four letters stand for one.
    """
    syllables, letters = run.groups()
    if syllables is None and letters is None:
        return [run[0]]
    size = 2 if syllables else 4
    starts = range(max(1, len(run[0]) - size + 1))
    return [" ".join(run[0][start : start + size]) for start in starts]


def _column(cursor: apsw.Cursor) -> Rows:
    return np.array([value for (value,) in cursor], dtype=np.int64)


def _strings(metadata: Metadata) -> str:
    """Return every string among the values, with what keeps runs without spaces apart."""
    found: list[str] = []
    waiting: list[Any] = list(metadata.values())
    while waiting:  # no recursion: metadata may be nested a thousand deep
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
    joined = "\n".join(found)
    return joined if joined.isascii() else _BETWEEN.join(found)


def _folded(text: str, table: Mapping[int, str | None] = _LETTERS) -> str:
    """Return text whose case, width, accents, vowel points and joiners make no difference."""
    if text.isascii():  # the tokenizer folds its case
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    bare = unicodedata.normalize("NFKD", text.casefold()).translate(table)
    return unicodedata.normalize("NFC", bare)


def _spaced(text: str) -> str:
    """Return folded text in which each character of a script without spaces stands apart."""
    text = _folded(text)
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)
