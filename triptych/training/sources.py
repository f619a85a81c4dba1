"""What a batch of one set says about its pictures: texts drawn anew each time, and who is alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from triptych.pairs import Row
from triptych.training.data import TEXT_SETS

PHOTO_OF = (
    "a photo of a {}",
    "{}",
    "a picture of a {}",
    "{} in a photo",
    "the {}",
    "a close-up of a {}",
    "a {}",
)
SHELF = (
    "{}",
    "{} on a shelf",
    "a photo of {} in a shop",
    "fresh {}",
    "a picture of {}",
    "a pack of {}",
)
WORN = (
    "{}",
    "a photo of a {}",
    "{} lying on the floor",
    "a piece of clothing: {}",
    "a picture of a {}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTexts:
    """Texts of a batch, the picture that each belongs to, and the group of every picture.

    `beside` is a text that may stand beside each picture, as part of one item: a product's photo
    with what the shop says of it. Empty where a set has none.
    """

    texts: list[str]
    owners: list[int]
    groups: list[str]
    beside: list[str] = field(default_factory=list)


Draw: TypeAlias = Callable[[Sequence[Row], Random], SampledTexts]


def _join(
    per_row: Sequence[Sequence[str]], groups: Sequence[str], beside: Sequence[str] = ()
) -> SampledTexts:
    pairs = [(text, i) for i, texts in enumerate(per_row) for text in texts]
    return SampledTexts(
        texts=[text for text, _ in pairs],
        owners=[i for _, i in pairs],
        groups=list(groups),
        beside=list(beside),
    )


def captions(rows: Sequence[Row], random: Random) -> SampledTexts:
    """Two of a photo's captions."""
    return _join(
        [random.sample(row.texts, min(2, len(row.texts))) for row in rows], [row.id for row in rows]
    )


def fashion(rows: Sequence[Row], random: Random) -> SampledTexts:
    """Titles, some of what the shop says beside the photo; in every fourth batch that alone."""
    said = [_product(row, random) for row in rows]
    if random.random() < 0.75:
        titles = [row.texts[0] for row in rows]
        return _join([[title] for title in titles], titles, said)
    return _join([[text] for text in said], said)


def _product(row: Row, random: Random) -> str:
    gender, colour = row.attributes["gender"], row.attributes["baseColour"]
    if random.random() < 0.5:
        return f"{gender} {colour} {row.label}"
    return f"{colour} {row.label}"


def emoji(rows: Sequence[Row], random: Random) -> SampledTexts:
    """The name or the tags in English, and the name in any other language."""
    per_row = []
    for row in rows:
        english = (
            row.texts[0] if random.random() < 0.75 else ", ".join(row.texts[1:]) or row.texts[0]
        )
        per_row.append([english, _elsewhere(row, random)])
    return _join(per_row, [row.label for row in rows])


def emoji_names(rows: Sequence[Row], random: Random) -> SampledTexts:
    """The same name in two languages, no picture: every third pair has no English."""
    per_row = []
    for row in rows:
        first = row.texts[0] if random.random() < 0.67 else _elsewhere(row, random)
        per_row.append([first, _elsewhere(row, random)])
    return _join(per_row, [row.label for row in rows])


def _elsewhere(row: Row, random: Random) -> str:
    languages = [names for names in row.attributes.values() if isinstance(names, list) and names]
    if not languages:
        return row.texts[0]
    names = random.choice(languages)
    return str(names[0] if random.random() < 0.8 or len(names) == 1 else random.choice(names[1:]))


def labelled(templates: Sequence[str]) -> Draw:
    """A template around the label; pictures of one label are alike."""

    def draw(rows: Sequence[Row], random: Random) -> SampledTexts:
        texts = [[random.choice(templates).format(row.texts[0])] for row in rows]
        return _join(texts, [row.label for row in rows])

    return draw


def grocery(rows: Sequence[Row], random: Random) -> SampledTexts:
    """The product's name; now and then its coarse class, or the description of a catalogue row."""
    if random.random() < 0.2:
        coarse = [str(row.attributes["coarse"]).replace("-", " ") for row in rows]
        return _join([[random.choice(SHELF).format(name.lower())] for name in coarse], coarse)
    texts = [
        [random.choice(SHELF).format(row.texts[0])] + ([row.texts[1]] if len(row.texts) > 1 else [])
        for row in rows
    ]
    return _join(texts, [row.label for row in rows])


def medpix(rows: Sequence[Row], random: Random) -> SampledTexts:
    """The caption, or what the scan is."""
    if random.random() < 0.7:
        return _join([[row.texts[0]] for row in rows], [row.texts[0] for row in rows])
    said = [
        f"{row.attributes.get('Plane', '')} {row.attributes['type']} of {row.label}" for row in rows
    ]
    return _join([[text] for text in said], said)


def clipart(rows: Sequence[Row], random: Random) -> SampledTexts:
    """The title, and some of the keywords; drawings of one title are alike."""
    texts = []
    for row in rows:
        *title, said = row.texts
        keywords = said.split(", ")
        some = random.sample(keywords, random.randint(min(2, len(keywords)), len(keywords)))
        texts.append([*title, ", ".join(some)])
    return _join(texts, [row.label for row in rows])


def law(rows: Sequence[Row], random: Random) -> SampledTexts:
    """A section's heading and the beginning of its body."""
    texts = [[row.texts[0].split(" ", 2)[-1], row.texts[-1][:300]] for row in rows]
    return _join(texts, [row.id for row in rows])


def draw_of(name: str) -> Draw:
    """Return how texts of a set are drawn; a set that has no way of its own has captions."""
    return _DRAWS.get(name, captions)


def is_own(name: str) -> bool:
    """Whether no recipe names the set: somebody's own pairs."""
    return name not in _DRAWS and name not in TEXT_SETS


def first_captioned(names: Iterable[str]) -> str | None:
    """Return the first set with captions: what a run is judged by."""
    return next((name for name in names if draw_of(name) is captions), None)


_DRAWS: dict[str, Draw] = {
    "flickr8k": captions,
    "vietnamese": captions,
    "fashion": fashion,
    "emoji": emoji,
    "emoji_names": emoji_names,
    "caltech101": labelled(PHOTO_OF),
    "clothing": labelled(WORN),
    "grocery": grocery,
    "medpix": medpix,
    "clipart": clipart,
    "law": law,
}
