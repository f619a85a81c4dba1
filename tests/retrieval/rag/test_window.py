"""Which piece of a passage is shown: that with the words of the question."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from triptych.retrieval.rag.tokens import token_spans
from triptych.retrieval.rag.window import best_window

LINES = [f"part {number} costs {number % 7} crowns" for number in range(40)]
TEXT = "\n".join(LINES)


def window(text: str, question: str, length: int) -> str:
    spans = token_spans(text)
    first = best_window(text, question, spans[:, 0].tolist(), length)
    return text[spans[first, 0] : spans[min(first + length, len(spans)) - 1, 1]]


def test_a_rare_word_counts_more_than_common_ones() -> None:
    shown = window(TEXT, "What does part 29 cost in crowns?", 60)
    assert "part 29 costs 1 crowns" in shown
    assert shown.startswith("part "), "it begins with a line"


def test_without_a_word_of_the_question_it_is_the_beginning() -> None:
    for question in ("", "?", "nothing of it", "crowns"):
        assert window(TEXT, question, 60).startswith("part 0 ")


def test_words_are_the_same_in_any_case_and_at_the_very_end() -> None:
    assert window(f"{TEXT}\nDie STRASSE heißt so", "straße", 30).endswith("heißt so")


@given(st.text(max_size=200), st.text(max_size=20), st.integers(0, 50))
def test_there_is_a_window_in_any_text(text: str, question: str, length: int) -> None:
    starts = token_spans(text)[:, 0].tolist()
    first = best_window(text, question, starts, length)
    assert 0 <= first <= max(0, len(starts) - length)
    assert isinstance(first, int) and not isinstance(first, np.integer)
