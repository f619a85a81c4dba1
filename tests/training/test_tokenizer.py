"""The tokenizer that ships, and the way that it is built."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from triptych.encoders.onnx import DEFAULT_FOLDER
from triptych.encoders.text_reader import read_tokenizer
from triptych.training.tokenizer import borrow_rows, build

SCRIPTS = {
    "English": "A dog’s ball, café",
    "Hindi": "दो कुत्ते बर्फ में",
    "Chinese": "两只狗在雪地里",
    "Thai": "สวัสดีครับ",
    "German": "Freiheitsstrafe auf der Straße",
    "Vietnamese": "một cậu bé đang chơi bóng",
    "Arabic": "العربية",
    "Amharic": "ሰላም",
    "Georgian": "გამარჯობა",
    "emoji": "😀🏖️",
    "Gothic": "𐍈",
}


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return read_tokenizer(DEFAULT_FOLDER)


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_no_script_is_unknown_and_none_is_one_token(shipped: Tokenizer, text: str) -> None:
    encoded = shipped.encode(text)
    assert "[UNK]" not in encoded.tokens
    assert len(encoded.ids) > 3


@pytest.mark.parametrize("text", ["दो कुत्ते", "một cậu bé", "ሰላም", "café"])
def test_marks_survive(shipped: Tokenizer, text: str) -> None:
    assert shipped.decode(shipped.encode(text).ids) == text


def test_two_words_that_differ_in_marks_differ(shipped: Tokenizer) -> None:
    assert shipped.encode("bán").ids != shipped.encode("ban").ids


def test_english_words_keep_their_piece() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "snow", "##board", "##s", "d", "##o", "##g"]
    built = build(wordpieces=words, corpus=["hund hund hund"] * 5, num_new=10)
    ids = built.tokenizer.encode("Dog snowboards", add_special_tokens=False).ids
    assert built.origins_V[ids].tolist() == [4, 5, 6, 7]


def test_a_new_word_borrows_from_its_translation() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "cat"]
    built = build(wordpieces=words, corpus=["hund katze"] * 9, num_new=80)
    table_VD = np.eye(6, dtype=np.float32)
    pairs = [("hund", "dog")] * 4 + [("katze", "cat")] * 4
    rows_VD = borrow_rows(
        pairs, tokenizer=built.tokenizer, origins_V=built.origins_V, table_VD=table_VD
    )
    (hund,) = built.tokenizer.encode("hund", add_special_tokens=False).ids
    assert rows_VD[hund].argmax() == words.index("dog")
