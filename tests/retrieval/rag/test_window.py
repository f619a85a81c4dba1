"""Which piece of a passage is shown: that with the words of the question."""

import numpy as np
import pytest
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


@pytest.mark.parametrize(
    ("line", "wanted", "question"),
    [
        ("第{}条は会議室の利用について定める。", "駐車場の料金は一日五百円である。", "駐車場の料金はいくらですか"),
        ("第{}条规定会议室的使用。", "停车场每天收费五元。", "停车场怎么收费"),
        ("제{}조는 회의실의 이용을 정한다. ", "주차장의 요금은 오천원이다.", "주차장 요금이 얼마인가요"),
        ("ข้อ {} การใช้ห้องประชุม\n", "ค่าที่จอดรถวันละห้าบาท", "ที่จอดรถราคาเท่าไร"),
    ],
)  # fmt: skip
def test_words_are_found_where_no_space_parts_them(line: str, wanted: str, question: str) -> None:
    before, after = ("".join(map(line.format, range(*ends))) for ends in ((0, 40), (40, 80)))
    assert wanted in window(f"{before}{wanted}\n{after}", question, 60)


@given(st.text(max_size=200), st.text(max_size=20), st.integers(0, 50))
def test_there_is_a_window_in_any_text(text: str, question: str, length: int) -> None:
    starts = token_spans(text)[:, 0].tolist()
    first = best_window(text, question, starts, length)
    assert 0 <= first <= max(0, len(starts) - length)
    assert isinstance(first, int) and not isinstance(first, np.integer)
