"""Captions in which words have given way to those of another language."""

from random import Random

from triptych.training.code_switching import joined, switched, switches
from triptych.training.words import Word

WORDS = [
    Word("狗", ("dog",), 1e-4),
    Word("獢", ("dog",), 1e-8),
    Word("跑", ("run",), 1e-4),
    Word("x y", ("a b",), 1e-4),
]


def test_the_commonest_words_stand_for_a_single_english_one() -> None:
    assert switches(WORDS, most=1) == {"dog": ["狗"], "run": ["跑"]}
    assert switches(WORDS)["dog"] == ["狗", "獢"]


def test_a_caption_in_which_words_have_given_way() -> None:
    switch = switches(WORDS, most=1)
    said = {switched("Two dogs are running .", switch, Random(n), "ja") for n in range(60)}
    assert said >= {"two狗跑", "狗跑"} and not any("are" in each for each in said)
    spaced = {switched("these dogs", switch, Random(n), "ru") for n in range(60)}
    assert spaced == {"these 狗", "these dogs", "these"}


def test_an_article_becomes_one_or_nothing() -> None:
    switch = {"dog": ["Hund"]}
    said = {switched("a dog", switch, Random(n), "de") for n in range(200)}
    assert said > {"ein Hund", "die Hund", "Hund"}
    without = {switched("a big dog", switch, Random(n), "ru") for n in range(60)}
    assert without >= {"big Hund", "Hund"} and not any("a" in each.split() for each in without)


def test_what_would_be_nothing_stays() -> None:
    assert {switched("a an", {}, Random(n), "ru") for n in range(5)} == {"a an"}


def test_words_are_joined_as_a_language_writes_them() -> None:
    assert joined(["一只", "狗"], "zh") == "一只狗" and joined(["ein", "Hund"], "de") == "ein Hund"
