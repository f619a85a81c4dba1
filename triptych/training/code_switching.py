"""Captions in which words have given way to those of another language (2006.06402)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from triptych.training.vocabulary import UNSPACED
from triptych.training.words import Word, words_in

# what stands where English has "a" or "the"; no other word of a caption is as common
ARTICLES = {
    "da": ("en", "et"),
    "de": ("ein", "eine", "einen", "der", "die", "das"),
    "el": ("ένας", "μια", "ένα", "ο", "η", "το"),
    "es": ("un", "una", "el", "la"),
    "fr": ("un", "une", "le", "la"),
    "hu": ("egy", "a", "az"),
    "it": ("un", "una", "il", "la"),
    "nb": ("en", "et"),
    "nl": ("een", "de", "het"),
    "pt": ("um", "uma", "o", "a"),
    "sv": ("en", "ett"),
    "tr": ("bir",),
    "zh": ("一个", "一只", "一张", "一位"),
    "zh-hant": ("一個", "一隻", "一張", "一位"),
}
_ARTICLES = frozenset({"a", "an", "the"})
_LEFT_OUT = frozenset({"of", "is", "are"})
_ENDINGS = (("", ""), ("s", ""), ("es", ""), ("ing", ""), ("ing", "e"), ("ed", ""), ("d", ""))


def switches(words: Sequence[Word], *, most: int = 3) -> dict[str, list[str]]:
    """Return a language's commonest words by the single English one that they mean first."""
    found: dict[str, list[Word]] = defaultdict(list)
    for word in words:
        if " " not in word.english[0] and word.text.count(" ") < 2:
            found[word.english[0]].append(word)
    return {
        english: [
            word.text
            for word in sorted(some, key=lambda word: (-word.frequency, len(word.text)))[:most]
        ]
        for english, some in found.items()
    }


def switched(
    caption: str, switch: Mapping[str, Sequence[str]], random: Random, language: str
) -> str:
    """Return a caption in which words have given way to those of a language.

    Short words that it has none for are left out now and then, and so are articles.
    """
    out = []
    articles = ARTICLES.get(language, ())
    for word in words_in(caption):
        foreign = articles if word in _ARTICLES else _looked_up(word, switch)
        if foreign and random.random() < (0.6 if word in _ARTICLES else 0.95):
            out.append(random.choice(foreign))
        elif word not in _ARTICLES | _LEFT_OUT and (len(word) > 4 or random.random() < 0.5):
            out.append(word)
    return joined(out, language) or caption


def joined(words: Sequence[str], language: str) -> str:
    """Return the words as the language writes them: with spaces or without."""
    return ("" if language in UNSPACED else " ").join(words)


def _looked_up(word: str, switch: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return next((switch[form] for form in _forms(word) if form in switch), ())


def _forms(word: str) -> Iterator[str]:
    """A word, and what it may be a form of: dog for dogs, run for running, bake for baking."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            stem = word.removesuffix(ending) + instead
            yield stem
            if len(stem) > 1 and stem[-1] == stem[-2]:
                yield stem[:-1]
