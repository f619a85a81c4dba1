"""Whether a model serves the writing of a text, so that a user is told when it does not."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

# The first word of a letter's Unicode name is its script; here the languages written in each.
_WRITTEN_IN = {
    "ARABIC": {"ar", "fa", "ur"},
    "BENGALI": {"bn", "as"},
    "CJK": {"zh", "ja"},
    "CYRILLIC": {"ru", "uk", "bg", "sr", "mk", "be", "kk"},
    "DEVANAGARI": {"hi", "mr", "ne"},
    "GREEK": {"el"},
    "HANGUL": {"ko"},
    "HEBREW": {"he", "yi"},
    "HIRAGANA": {"ja"},
    "KATAKANA": {"ja"},
    "THAI": {"th"},
}
_NAMES = {"CJK": "Chinese", "HANGUL": "Korean", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}


def unserved_script(text: str, languages: Sequence[str]) -> str | None:
    """Return the script that most letters of `text` are in if none of `languages` is written in it.

    Latin is taken as served. A model that declares no language ("und", or none) is not judged.
    """
    served = {tag.partition("-")[0] for tag in languages}
    if not served or "und" in served:
        return None
    scripts = Counter(
        unicodedata.name(letter, "UNKNOWN").partition(" ")[0] for letter in text if letter.isalpha()
    )
    if not scripts:
        return None
    script, _ = scripts.most_common(1)[0]
    if script == "LATIN" or _WRITTEN_IN.get(script, set()) & served:
        return None
    return _NAMES.get(script, script.capitalize())
