"""Words of other languages, what they mean in English, and how often each is drawn.

They are names and tags of emoji, and words of dictionaries.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from random import Random
from typing import NamedTuple

from triptych.pairs import Row

_NOT_ENGLISH = ("dictionaries", "law", "vietnamese")
_LIKE = 0.5  # Dice; a tag's emoji are then those of one English tag
_OFTEN = 1e-4  # of all words; what is more common, as "and" is, is no better to know
_UNLISTED = 1e-8  # so common is what no list of common words has, as it cuts it in two
_UNNAMED = 0.2  # weight of what nothing is called, beside what something is
_SHORT = 3  # words of a text that is a name, and no caption
_LIKELIEST = 10_000  # words of a language: a large dictionary would else be met a word at a time
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


class Word(NamedTuple):
    """A word or name in some language, and what it means in English: all of these, the first most.

    `frequency` is its share of all words of the language, 0 where that is not known.
    """

    text: str
    english: tuple[str, ...]
    frequency: float = 0.0


class Weighed:
    """Words of a language, of which each is drawn as often as another, or by its weight."""

    def __init__(self, words: Sequence[Word], weights: Iterable[float] | None = None) -> None:
        self.words = words
        self._until = list(accumulate(weights or (1.0 for _ in words)))

    def draw(self, random: Random) -> Word:
        """Return one of them."""
        return random.choices(self.words, cum_weights=self._until)[0]

    def shares(self) -> Iterator[tuple[Word, float]]:
        """Yield each word, and how likely it is drawn."""
        before = 0.0
        for word, until in zip(self.words, self._until, strict=True):
            yield word, (until - before) / self._until[-1]
            before = until


class Lexicon(NamedTuple):
    """Names and tags of emoji, and words of dictionaries, by language."""

    names: Mapping[str, Weighed]
    words: Mapping[str, Weighed]

    def english(self) -> list[str]:
        """Return all meanings, in order."""
        some = chain.from_iterable(each.words for of in self for each in of.values())
        return sorted({each for word in some for each in word.english})


def english_of(rows: Mapping[str, Sequence[Row]]) -> Iterator[Sequence[Row]]:
    """Yield the sets whose texts are English, or may be."""
    return (some for name, some in rows.items() if name not in _NOT_ENGLISH)


def lexicon(rows: Mapping[str, Sequence[Row]]) -> Lexicon:
    """Return what sets of these names know of other languages."""
    count = counted(english_of(rows))
    words = words_of(rows.get("dictionaries", ()), count=count)
    names = names_of(rows.get("emoji", ()))
    named = named_in(english_of(rows))
    return Lexicon(
        names={language: Weighed(some) for language, some in names.items()},
        words={language: likeliest(some, named) for language, some in words.items()},
    )


def names_of(rows: Sequence[Row]) -> dict[str, list[Word]]:
    """Return names and tags of emoji by language.

    A name means the English one. A tag means the English tag whose emoji are most alike its own
    (Dice), or else all that its first emoji are called.
    """
    english = [frozenset(map(str.lower, row.texts)) for row in rows]
    count = Counter(each for texts in english for each in texts)
    found: dict[str, list[Word]] = defaultdict(list)
    tagged: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, row in enumerate(rows):
        for language, (name, *tags) in _foreign(row):
            # a hundred hands and faces are there five times more, in shades
            if "skin tone" not in row.texts[0] or at % 10 == 0:
                found[language].append(Word(name, (row.texts[0],)))
            for tag in dict.fromkeys(tags):
                tagged[language][tag].append(at)
    for language, tags_of in tagged.items():
        for tag, places in tags_of.items():
            shared = Counter(each for at in places for each in english[at])
            dice = {each: 2 * n / (len(places) + count[each]) for each, n in shared.items()}
            best = max(dice, key=lambda each: (dice[each], -len(each), each))
            alike = len(places) > 1 and dice[best] >= _LIKE
            called = tuple(rows[at].texts[0] for at in places[:6])
            found[language].append(Word(tag, (best,) if alike else called))
    return dict(found)


def _foreign(row: Row) -> Iterator[tuple[str, list[str]]]:
    for language, names in row.attributes.items():
        if not language.startswith("en") and isinstance(names, list) and names:
            yield language, [str(name) for name in names]


def counted(sets: Iterable[Sequence[Row]]) -> Counter[str]:
    """Return how often each English word stands in the texts of some sets."""
    return Counter(word for rows in sets for said in said_in(rows) for word in words_in(said))


def words_of(rows: Sequence[Row], *, count: Mapping[str, int]) -> dict[str, list[Word]]:
    """Return words of dictionaries by language, whose meanings are of words that stand in a text.

    What the model has met nowhere, it can tell nobody the meaning of.
    """
    found: dict[str, list[Word]] = defaultdict(list)
    for row in rows:
        text, *meanings = row.texts
        english = tuple(each for each in meanings[:3] if _times(each, count) > 1)
        if english:
            found[row.label].append(Word(text, english, _frequency(row)))
    return dict(found)


def _frequency(row: Row) -> float:
    known = row.attributes.get("frequency", 0.0)
    return float(known) if isinstance(known, int | float) else 0.0


def named_in(sets: Iterable[Sequence[Row]]) -> set[str]:
    """Return the words of all names: of labels, tags and other texts that are as short."""
    texts = (words_in(said) for rows in sets for said in said_in(rows))
    return {word for text in texts if len(text) <= _SHORT for word in text}


def likeliest(words: Sequence[Word], named: Collection[str]) -> Weighed:
    """Return those of a language that are worth most, by their weights."""
    of = weights(words, named)
    kept = sorted(range(len(words)), key=lambda at: -of[at])[:_LIKELIEST]
    return Weighed([words[at] for at in kept], [of[at] for at in kept])


def weights(words: Iterable[Word], named: Collection[str]) -> list[float]:
    """Return a weight for each word: the more, the more common it is, and if it is of a name.

    What something is called can be seen, and is asked for; "walking" is said beside it.
    """
    return [
        (min(word.frequency, _OFTEN) + _UNLISTED) ** 0.3
        * (1.0 if all(each in named for each in words_in(word.english[0])) else _UNNAMED)
        for word in words
    ]


def _times(english: str, count: Mapping[str, int]) -> int:
    """How often the rarest of its words was met."""
    return min((count.get(word, 0) for word in words_in(english)), default=0)


def words_in(text: str) -> list[str]:
    """Return the words of an English text, in lower case."""
    return _WORD.findall(text.lower())


def said_in(rows: Sequence[Row]) -> set[str]:
    """Return all texts and labels of some rows."""
    return {text for row in rows for text in (*row.texts, row.label) if text}
