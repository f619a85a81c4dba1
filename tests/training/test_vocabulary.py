"""Words that become pieces of their own: which, with what rows, and that English stays."""

from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer

torch = pytest.importorskip("torch")

from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel  # noqa: E402
from triptych.encoders.text_reader import read_tokenizer  # noqa: E402
from triptych.training import shipped  # noqa: E402
from triptych.training.languages import LanguagesConfig  # noqa: E402
from triptych.training.tokenizer import build  # noqa: E402
from triptych.training.vocabulary import extended  # noqa: E402
from triptych.training.words import Word  # noqa: E402
from triptych.types import Item, Matrix  # noqa: E402

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "cat", "black", "s"]
WORDS = [
    ("de", Word("Hund", ("dog",)), 0.4),
    ("de", Word("Katze", ("cat", "black cat")), 0.3),
    ("sv", Word("katze", ("cat",)), 0.1),
    ("zh", Word("黑狗", ("black dog",)), 0.2),
    ("de", Word("schwarzer Hund", ("black dog",)), 0.9),  # two words
    ("nl", Word("cat", ("cat",)), 0.9),  # a piece already
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build(wordpieces=PIECES, corpus=["h u n d k a t z e 黑 狗"] * 9, num_new=40).tokenizer


DIRECTIONS = ["dog", "cat", "black cat", "black dog", "Hund", "Katze", "katze", "黑狗"]


def apart(texts: Sequence[str]) -> Matrix:
    """Read every text as something else: no word has the vector of what it means."""
    return np.eye(len(DIRECTIONS), dtype=np.float32)[[DIRECTIONS.index(text) for text in texts]]


def table(tokenizer: Tokenizer) -> "torch.Tensor":
    return torch.eye(tokenizer.get_vocab_size())


def inner(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


def test_the_likeliest_words_become_pieces_whatever_their_language(tokenizer: Tokenizer) -> None:
    longer, rows = extended(
        tokenizer, table(tokenizer), words=WORDS, english=[], most=2, read=apart
    )
    assert inner(longer, "HUND katze") == ["▁hund", "▁katze"]
    assert inner(longer, "黑狗") == inner(tokenizer, "黑狗")
    assert len(rows) == longer.get_vocab_size() == tokenizer.get_vocab_size() + 2
    assert rows[:-2].equal(table(tokenizer))


def test_what_is_written_without_spaces_is_found_anywhere(tokenizer: Tokenizer) -> None:
    longer, _ = extended(tokenizer, table(tokenizer), words=WORDS, english=[], most=3, read=apart)
    assert inner(longer, "dog黑狗") == ["▁dog", "黑狗"]


def test_a_row_is_that_of_the_meanings_and_as_long(tokenizer: Tokenizer) -> None:
    was = table(tokenizer)
    longer, rows = extended(tokenizer, was, words=WORDS, english=[], most=3, read=apart)
    dog, cat, black = (tokenizer.token_to_id(f"▁{word}") for word in ("dog", "cat", "black"))
    row = rows[longer.token_to_id("▁hund")]
    assert row.equal(was[dog])
    katze = rows[longer.token_to_id("▁katze")]
    assert katze.norm().item() == pytest.approx(1.0)
    # 0.3 + 0.1 of "cat", 0.15 of "black cat"
    assert (katze[black] / katze[cat]).item() == pytest.approx(0.075 / 0.475)
    assert katze[dog] == 0


def test_a_word_that_an_english_text_would_be_read_by_is_left_out(tokenizer: Tokenizer) -> None:
    longer, _ = extended(
        tokenizer, table(tokenizer), words=WORDS, english=["a hund"], most=3, read=apart
    )
    assert inner(longer, "hund") == inner(tokenizer, "hund")
    assert inner(longer, "katze") == ["▁katze"]


def test_a_word_that_is_read_as_what_it_means_needs_no_piece(tokenizer: Tokenizer) -> None:
    def read(texts: Sequence[str]) -> Matrix:
        return apart(["dog" if text == "Hund" else text for text in texts])

    longer, _ = extended(tokenizer, table(tokenizer), words=WORDS, english=[], most=2, read=read)
    assert inner(longer, "hund") == inner(tokenizer, "hund")
    assert inner(longer, "katze") == ["▁katze"]
    assert inner(longer, "黑狗") == ["▁", "黑狗"]


def test_no_words_no_pieces(tokenizer: Tokenizer) -> None:
    longer, rows = extended(
        tokenizer, table(tokenizer), words=[], english=["a"], most=9, read=apart
    )
    assert longer.get_vocab_size() == len(rows) == tokenizer.get_vocab_size()


def test_the_shipped_tokenizer_reads_words_in_one_piece() -> None:
    tokenizer = read_tokenizer(DEFAULT_FOLDER)
    assert len(shipped.words(DEFAULT_FOLDER)) == tokenizer.get_vocab_size()
    for word in ("eine Katze", "une fleur", "красный цветок", "большая машина"):
        assert len(inner(tokenizer, word)) <= 5, word
        assert len(inner(tokenizer, word.split()[1])) == 1, word


MEANT = {
    "a cat": ("eine Katze", "кошка", "un gato", "一只猫", "猫"),
    "a bird": ("un pájaro", "ein Vogel", "птица", "un oiseau", "一只鸟"),
    "a flower": ("une fleur", "цветок", "eine Blume", "花"),
    "a car": ("машина", "ein Auto", "une voiture", "汽车"),
    "a bicycle": ("自転車", "ein Fahrrad", "un vélo", "自行车"),
    "a musical instrument": ("乐器", "ein Musikinstrument", "un instrumento musical"),
    "a dog": ("собака", "ein Hund", "un chien", "犬", "狗"),
    "a house": ("ein Haus", "une maison", "дом", "房子"),
}


def test_the_shipped_model_knows_what_everyday_words_mean() -> None:
    model = OnnxModel.load(DEFAULT_FOLDER)

    def read(texts: Sequence[str]) -> Matrix:
        return model.embed([Item(id=str(at), text=text) for at, text in enumerate(texts)])

    words = [(word, english) for english, some in MEANT.items() for word in some]
    scores = read([word for word, _ in words]) @ read(list(MEANT)).T
    found = [list(MEANT)[at] for at in scores.argmax(axis=1)]
    wrong = [
        (word, got) for (word, english), got in zip(words, found, strict=True) if got != english
    ]
    assert len(wrong) <= 1, wrong


def test_the_shipped_model_has_as_many_pieces_as_the_recipe_wants() -> None:
    config = LanguagesConfig()
    assert read_tokenizer(DEFAULT_FOLDER).get_vocab_size() == config.vocabulary
