"""How common words are: the lists of wordfreq (Speer 2022), read out of its unpacked wheel.

A list is a gzipped MessagePack array: a header, then the words of 0 centibels, of -1, of -2 and so
on; -100 centibels are one word in ten.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgpack

from triptych.errors import InvalidInput

_SIZES = ("large", "small")  # words down to one in a hundred million, in a million
_SIMPLIFIED = {"zh-hant": "zh"}  # whose list is of words in other characters


def frequencies(folder: Path, language: str) -> dict[str, float]:
    """Return the share that each word has of all words of a language, the commonest first.

    In lower case, Chinese in simplified characters. Empty where no list of the language lies below
    `folder`; raises InvalidInput for a file that is none.
    """
    name = _SIMPLIFIED.get(language, language)
    found = [path for size in _SIZES for path in folder.rglob(f"{size}_{name}.msgpack.gz")]
    _, *steps = _read(found[0]) if found else [{}]
    return {word: 10 ** (-at / 100) for at, words in enumerate(steps) for word in words}


def simplified(folder: Path) -> dict[int, str]:
    """Return what `str.translate` makes simplified characters of traditional ones with."""
    found = [*folder.rglob("_chinese_mapping.msgpack.gz")]
    return dict(_read(found[0])) if found else {}


def _read(path: Path) -> Any:
    try:
        return msgpack.unpackb(gzip.decompress(path.read_bytes()), strict_map_key=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{path} cannot be read as a list of words: {error}.") from None
