"""Links of words: phrases, heads, and what lies between."""

from hypothesis import given
from hypothesis import strategies as st

from triptych.encoders.structure.word_graph import word_links


def named(text: str, kind: str, *, window: int = 2) -> set[tuple[str, str, str]]:
    """Links of one kind that go forwards, with what lies between."""
    pieces = text.split()
    return {
        (pieces[link.source], pieces[link.target], " ".join(pieces[link.start : link.stop]))
        for link in word_links(pieces, window=window)
        if link.kind == kind and link.source < link.target
    }


def test_a_relation_joins_the_heads_of_its_phrases() -> None:
    text = "[CLS] a red circle left of a blue square [SEP]"
    assert named(text, "across") == {("circle", "square", "left of a blue")}
    assert named(text, "phrase") == {("red", "circle", ""), ("blue", "square", "")}


def test_a_side_is_a_relation_only_before_of_or_to() -> None:
    assert named("cat to the left of the dog", "across") == {("cat", "dog", "to the left of the")}
    assert named("the left shoe on a table", "across") == {("shoe", "table", "on a")}
    assert named("the left shoe on a table", "phrase") == {("left", "shoe", "")}


def test_three_things_make_a_chain() -> None:
    assert named("a dog on sand , two birds above it", "across") == {
        ("dog", "sand", "on"),
        ("sand", "birds", ", two"),
    }


def test_pieces_of_a_word_hang_on_its_first() -> None:
    text = "a tri ##ang ##le above a star"
    assert named(text, "piece") == {("tri", "##ang", ""), ("tri", "##le", "##ang")}
    assert named(text, "across") == {("tri", "star", "##ang ##le above a")}


def test_starts_may_be_marked_instead() -> None:
    text = "[CLS] ▁a ▁tri angle ▁, ▁left ▁of ▁a ▁star [SEP]"
    assert named(text, "piece") == {("▁tri", "angle", "")}
    assert named(text, "across") == {("▁tri", "▁star", "angle ▁, ▁left ▁of ▁a")}


def test_neighbours_lie_within_the_window_and_specials_have_none() -> None:
    assert named("[CLS] one two three [SEP]", "near", window=1) == {
        ("one", "two", ""),
        ("two", "three", ""),
    }
    assert word_links(["[CLS]", "[SEP]", "[PAD]"]) == []
    assert word_links([]) == []


def test_an_unknown_language_is_one_phrase() -> None:
    assert named("ein rotes Quadrat", "across") == set()
    assert len(named("ein rotes Quadrat", "phrase")) == 2


PIECES = st.lists(st.sampled_from(["[CLS]", "a", "left", "of", "red", "##s", "circle", ",", "["]))


@given(PIECES, st.integers(0, 3))
def test_links_are_mirrored_and_stay_inside(pieces: list[str], window: int) -> None:
    links = word_links(pieces, window=window)
    assert all(0 <= link.source < len(pieces) and 0 <= link.target < len(pieces) for link in links)
    assert all(link.source != link.target for link in links)
    mirrored = {(link.target, link.source, link.kind) for link in links}
    assert mirrored == {(link.source, link.target, link.kind) for link in links}
    for link in links:
        low, high = sorted((link.source, link.target))
        assert (link.start, link.stop) == (low + 1, high)
