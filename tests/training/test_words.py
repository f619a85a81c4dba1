"""Words of other languages: what they mean, and how often they are drawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import pytest

from triptych.pairs import Row
from triptych.training.words import (
    Weighed,
    Word,
    counted,
    lexicon,
    likeliest,
    named_in,
    names_of,
    weights,
    words_of,
)


def row(texts: Sequence[str], *, label: str = "", names: Mapping[str, object] | None = None) -> Row:
    return Row(
        id=texts[0], split="train", image=None, texts=tuple(texts), label=label,
        attributes=names or {},
    )  # fmt: skip


def test_an_emoji_has_names_and_a_tag_means_what_its_emoji_share() -> None:
    rows = [
        row(["dog", "pet", "animal"], names={"de": ["Hund", "Tier"], "en-gb": ["dog", "pet"]}),
        row(["cat", "pet", "animal"], names={"de": ["Katze", "Tier", "schnurrt"]}),
        row(["whale", "animal", "sea"], names={"de": ["Wal", "Tier"]}),
        row(["hand: dark skin tone", "hand"], names={"de": ["Hand: dunkel"]}),
        row(["bone", "pet"], names={"fr": []}),
    ]
    assert names_of(rows) == {
        "de": [
            Word("Hund", ("dog",)),
            Word("Katze", ("cat",)),
            Word("Wal", ("whale",)),
            Word("Tier", ("animal",)),
            Word("schnurrt", ("cat",)),  # of one emoji: what that is called
        ]
    }


def test_a_dictionary_s_word_means_what_stands_in_a_text() -> None:
    rows = [
        row(["Hund", "dog", "crampon", "big dog"], label="de", names={"frequency": 2e-5}),
        row(["Bandhaken", "crampon"], label="de"),
    ]
    count = counted([[row(["a big dog"]), row(["the dog and a big cat"])]])
    assert count["dog"] == 2 and count["cat"] == 1
    assert words_of(rows, count=count) == {"de": [Word("Hund", ("dog", "big dog"), 2e-5)]}


def test_what_is_common_and_can_be_seen_is_drawn_more_often() -> None:
    words = [
        Word("Hund", ("dog",), 1e-5),
        Word("Köter", ("dog",), 1e-8),
        Word("gehen", ("to walk",), 1e-5),
        Word("Straßenköter", ("dog",)),  # no list has it
    ]
    of = dict(zip("HKgS", weights(words, {"dog", "to"}), strict=True))
    assert of["H"] == pytest.approx(5 * of["g"])
    assert of["H"] > of["K"] > of["S"] > 0
    random, weighed = Random(1), Weighed(words, of.values())
    drawn = Counter(weighed.draw(random).text for _ in range(5000))
    assert drawn["Hund"] / drawn["gehen"] == pytest.approx(5.0, rel=0.15)
    shares = {word.text: share for word, share in weighed.shares()}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["Hund"] == pytest.approx(drawn["Hund"] / 5000, rel=0.1)


def test_words_as_common_as_and_are_as_good_as_each_other() -> None:
    some = [Word("und", ("and",), 0.03), Word("Mann", ("man",), 2e-4)]
    one, other = weights(some, {"and", "man"})
    assert one == other


def test_names_are_short_texts_and_a_caption_is_none() -> None:
    rows = [row(["a black dog runs", "Black dog"]), row(["x-ray"], label="chest film")]
    assert named_in([rows]) == {"black", "dog", "x", "ray", "chest", "film"}


def test_of_a_large_dictionary_the_likeliest_words_are_kept() -> None:
    many = [Word(f"w{at}", ("dog",), at * 1e-9) for at in range(10_500)]
    kept = likeliest(many, {"dog"})
    assert [word.text for word in kept.words[:2]] == ["w10499", "w10498"]
    assert len(kept.words) == 10_000


def test_the_statutes_are_no_english_texts() -> None:
    rows = {
        "flickr8k": [row(["a dog"]), row(["the dog"])],
        "law": [row(["die Strafe"]), row(["die Haft"])],
        "dictionaries": [row(["Hund", "dog"], label="de"), row(["sterben", "die"], label="de")],
    }
    known = lexicon(rows)
    assert known.english() == ["dog"] and not known.names
    assert known.words["de"].words == [Word("Hund", ("dog",))]
