"""Words of the items' text and metadata, ranked by BM25 (SQLite FTS5).

The table holds no text, only where each word stands. Chinese and Japanese have no spaces: instead
of FTS5's trigrams, which cannot find a word of two characters, as most Chinese words are, each
character of such a script is a word of its own and a run of them in a query is a phrase, which
finds any substring. So are Korean (whose particles stick to the words), Thai, Lao, Khmer and
Burmese.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from triptych.types import Metadata

SCHEMA = """
CREATE VIRTUAL TABLE words USING fts5(
    text, metadata, content = '', contentless_delete = 1,
    tokenize = "unicode61 remove_diacritics 2 categories 'L* M* N* Co'"
);
"""

_SYLLABIC = (
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "\uac00-\ud7a3"  # Korean syllables
)
_ALPHABETIC = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
_UNSPACED = re.compile(f"[{_SYLLABIC}{_ALPHABETIC}]")
_JOINERS = (0xAD, 0x200C, 0x200D)
_MARKS = dict.fromkeys(
    code
    for code in (*_JOINERS, *range(0x300, 0x3000), *range(0xFE20, 0xFE30))
    # the classes of Hebrew and Arabic vowel points, and of accents; those between shape letters
    if code in _JOINERS or 10 <= (place := unicodedata.combining(chr(code))) <= 36 or place > 200
)


def insert(connection: apsw.Connection, items: Sequence[tuple[int, str | None, Metadata]]) -> None:
    """Add the words of (row, text, metadata); of the metadata the strings, however deep."""
    connection.executemany(
        "INSERT INTO words(rowid, text, metadata) VALUES (?, ?, ?)",
        [
            (row, _spaced(text) if text else "", _spaced(_strings(metadata)) if metadata else "")
            for row, text, metadata in items
        ],
    )


def drop(connection: apsw.Connection, rows: Sequence[int]) -> None:
    """Forget these rows; what they leave in the file goes with `purge`."""
    connection.executemany("DELETE FROM words WHERE rowid = ?", [(row,) for row in rows])


def purge(connection: apsw.Connection) -> None:
    """Write the table anew without what was dropped; VACUUM then frees the pages."""
    connection.execute("INSERT INTO words(words) VALUES ('optimize')")


def _strings(metadata: Metadata) -> str:
    """Return every string among the values, one to a line."""
    if all(isinstance(value, str) for value in metadata.values()):
        return "\n".join(metadata.values())
    found: list[str] = []
    waiting: list[Any] = [metadata]
    while waiting:  # no recursion: metadata may be nested a thousand deep
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, Sequence):
            waiting.extend(reversed(value))
    return "\n".join(found)


def _folded(text: str) -> str:
    """Return text whose case, width, accents, vowel points and joiners make no difference."""
    if text.isascii():  # the tokenizer folds its case
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    bare = unicodedata.normalize("NFKD", text.casefold()).translate(_MARKS)
    return unicodedata.normalize("NFC", bare)


def _spaced(text: str) -> str:
    """Return folded text in which each character of a script without spaces stands apart."""
    text = _folded(text)
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)
