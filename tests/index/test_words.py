"""The words of items: what is found, in which order, and what a deleted word leaves."""

from __future__ import annotations

import math
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import InvalidInput
from triptych.index.sqlite import words

WORDS = ["cat", "dog", "fish", "红", "色", "bird"]
DOCUMENT = st.lists(st.sampled_from(WORDS), max_size=6)


def connect(path: Path | None = None) -> apsw.Connection:
    connection = apsw.Connection(":memory:" if path is None else str(path))
    for setting in ("journal_mode = WAL", "secure_delete = ON", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


def words_of(*texts: str | None) -> apsw.Connection:
    """Return a table with these texts in the rows 1, 2, ..."""
    connection = connect()
    connection.execute(words.SCHEMA)
    words.insert(connection, [(row, text, {}) for row, text in enumerate(texts, 1)])
    return connection


def found(connection: apsw.Connection, query: str) -> list[int]:
    rows: list[int] = words.search(connection, query, 10)[0].tolist()
    return rows


def bm25(documents: dict[int, list[str]], query: set[str]) -> dict[int, float]:
    """Return the scores by the definition (Robertson and Zaragoza 2009; SQLite: k1 1.2, b 0.75)."""
    average = sum(map(len, documents.values())) / max(len(documents), 1)
    scores: dict[int, float] = {}
    for term in query:
        having = sum(term in document for document in documents.values())
        rarity = max(math.log((len(documents) - having + 0.5) / (having + 0.5)), 1e-6)
        for row, document in documents.items():
            often = document.count(term)
            if often:
                length = 1 - 0.75 + 0.75 * len(document) / average
                score = rarity * often * 2.2 / (often + 1.2 * length)
                scores[row] = scores.get(row, 0.0) + score
    return scores


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(DOCUMENT, DOCUMENT), max_size=12),
    st.sets(st.sampled_from(WORDS), min_size=1),
    st.sets(st.integers(1, 12)),
    st.one_of(st.none(), st.sets(st.integers(1, 14))),
    st.integers(1, 15),
)
def test_the_scores_are_those_of_the_definition(
    pairs: list[tuple[list[str], list[str]]],
    query: set[str],
    dropped: set[int],
    allowed: set[int] | None,
    k: int,
) -> None:
    connection = words_of()
    documents = {row: text + more for row, (text, more) in enumerate(pairs, 1)}
    words.insert(
        connection,
        [
            (row, " ".join(text), {"key": " ".join(more)})
            for row, (text, more) in enumerate(pairs, 1)
        ],
    )
    words.drop(connection, sorted(dropped))
    expected = bm25({r: d for r, d in documents.items() if r not in dropped}, query)
    expected = {r: s for r, s in expected.items() if allowed is None or r in allowed}
    keep = None if allowed is None else np.array(sorted(allowed), dtype=np.int64)
    rows_K, scores_K = words.search(connection, " ".join(sorted(query)), k, allowed=keep)
    assert rows_K.dtype == np.int64
    assert scores_K.dtype == np.float32
    assert len(set(rows_K.tolist())) == len(rows_K) >= min(k, len(expected))
    np.testing.assert_allclose(scores_K, [expected[row] for row in rows_K], rtol=1e-5)
    assert (scores_K[k:] == scores_K[k - 1 : k]).all(), "more than k share the last place"
    best = sorted(expected.values(), reverse=True)[: len(rows_K)]
    np.testing.assert_allclose(scores_K, best, rtol=1e-5)
    for left in range(len(rows_K) - 1):
        assert scores_K[left] > scores_K[left + 1] or rows_K[left] < rows_K[left + 1]


def test_all_that_share_the_last_place_come_in_the_order_of_their_rows() -> None:
    connection = words_of(*["same words"] * 20, "words", *["other words than same"] * 3)
    assert words.search(connection, "words", 5)[0].tolist() == [21, *range(1, 21)]
    assert words.search(connection, "words", 1)[0].tolist() == [21]
    some = np.arange(10, 22)
    assert words.search(connection, "words", 2, allowed=some)[0].tolist() == [21, *range(10, 21)]


def test_a_chinese_word_of_two_characters_is_found_where_trigrams_find_nothing() -> None:
    text = "北京的天气很好"
    trigrams = connect()
    trigrams.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize = 'trigram')")
    trigrams.execute("INSERT INTO t VALUES (?)", (text,))
    assert trigrams.execute("SELECT count(*) FROM t WHERE t MATCH ?", ('"天气"',)).get == 0
    assert found(words_of(text, "上海"), "天气") == [1]


@settings(max_examples=60, deadline=None)
@given(st.text("北京天气", min_size=1, max_size=8), st.data())
def test_any_substring_of_a_text_without_spaces_is_found(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert found(words_of("上海", text), text[start:end]) == [2]


def test_a_run_counts_by_its_pieces_but_the_whole_comes_first() -> None:
    connection = words_of("上海天气", "北京烤鸭", "北京天气", "香港")
    assert found(connection, "北京天气")[0] == 3
    assert set(found(connection, "北京天气")) == {1, 2, 3}
    assert found(connection, "京北") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("東京タワー", "タワー"),
        ("ﾊﾝｶｸ and ｗｉｄｅ", "ハンカク"),
        ("ﾊﾝｶｸ and ｗｉｄｅ", "WIDE"),
        ("iPhone手机壳", "手机"),
        ("iPhone手机壳", "iphone"),
        ("서울에서 왔다", "서울"),
        ("ผมชอบกินข้าวผัด", "ข้าวผัด"),
        ("ຂ້ອຍມັກເຂົ້າ", "ເຂົ້າ"),
        ("ខ្ញុំស្រឡាញ់កម្ពុជា", "កម្ពុជា"),
        ("မြန်မာနိုင်ငံ", "နိုင်ငံ"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("தமிழ் மொழி", "தமிழ்"),
        ("كَتَبَ الولد", "كتب"),
        ("שָׁלוֹם עולם", "שלום"),
        ("Ёлка и ПИРОГ", "елка"),
        ("Ωμέγα", "ΩΜΕΓΑ"),
        ("Crème Brûlée", "creme brulee"),
        ("creme", "crème"),
        ("cafe\u0301", "CAFÉ"),
        ("Straße", "STRASSE"),
        ("ışık", "IŞIK"),
        ("IŞIK", "ışık"),
        ("ışık", "isik"),
        ("Đà Nẵng", "da nang"),
        ("Łódź", "lodz"),
        ("Øresund", "oresund"),
        ("l'œuvre", "OEUVRE"),
        ("ærø", "aero"),
        ("ex\u00adample", "example"),
        ("می‌خواهم", "میخواهم"),
        ("an e-mail address", "e-mail"),
        ("don't", "don't"),
        ("before\0after", "after"),
        ("half \ud800 broken", "broken"),
    ],
)
def test_words_of_many_languages(text: str, query: str) -> None:
    assert found(words_of("something else 上 ก", text), query) == [2]


def test_a_letter_is_found_as_earlier_versions_wrote_it() -> None:
    connection = words_of("ISIK")
    connection.execute("INSERT INTO words(rowid, text, metadata) VALUES (2, 'ısık', '')")
    assert found(connection, "ışık") == [1, 2]


@pytest.mark.parametrize("text", ["हिन्दी", "தமிழ்", "कि"])
def test_a_vowel_sign_belongs_to_its_word(text: str) -> None:
    assert found(words_of(text), text[0]) == []


@pytest.mark.parametrize("query", ["", " ", '"', '""', "*", "-", "()", "^", ":", "\0", "🎉", "'"])
def test_a_query_without_a_word_finds_nothing(query: str) -> None:
    assert found(words_of("some text", '"', "🎉"), query) == []


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("AND", [1]),
        ("NOT cat", [1, 2]),
        ("cat -dog", [2, 3]),
        ("ca*", []),
        ("text:cat", [2]),
        ("NEAR(cat dog)", [2, 3]),
        ('"cat dog"', [2, 3]),
        ('cat" OR "x', [1, 2]),
        ("^cat", [2]),
    ],
)
def test_no_character_of_a_query_is_an_operator(query: str, rows: list[int]) -> None:
    assert sorted(found(words_of("and or not", "cat", "dog"), query)) == rows


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_can_be_stored_and_asked(text: str, query: str) -> None:
    connection = words_of(text, query)
    words.search(connection, query, 10)
    assert words.problem(connection, np.array([1, 2])) is None


@pytest.mark.parametrize("query", ["word " * 5_000, "中" * 5_000, "a-" * 5_000, "ก" * 5_000])
def test_a_page_as_a_query_is_answered(query: str) -> None:
    assert found(words_of(query[:50], "other"), query) == [1]


def test_a_query_of_many_words_is_no_error() -> None:
    query = " ".join(f"w{number}" for number in range(400))
    assert found(words_of("w3", "other"), query) == [1]


def test_the_strings_of_the_metadata_are_words_too_however_deep() -> None:
    deep: object = "bottom"
    for _ in range(1_000):
        deep = [{"key": deep}]
    connection = words_of()
    metadata = {"title": "on top", "number": 7, "none": None, "flag": True, "deep": deep}
    words.insert(connection, [(5, None, metadata), (6, "plain", {})])
    assert found(connection, "bottom") == found(connection, "top") == [5]
    assert found(connection, "title") == found(connection, "7") == []


def test_a_phrase_does_not_run_from_the_text_into_the_metadata() -> None:
    connection = words_of()
    words.insert(connection, [(1, "北", {"place": "京", "other": "天"})])
    assert found(connection, "北京") == found(connection, "京天") == []


def test_k_is_checked_and_nothing_allowed_finds_nothing() -> None:
    connection = words_of("cat")
    assert len(words.search(connection, "cat", 10**30)[0]) == 1
    assert len(words.search(connection, "cat", 1, allowed=np.empty(0, np.int64))[0]) == 0
    with pytest.raises(InvalidInput, match="k is 1 or more"):
        words.search(connection, "cat", 0)


def test_a_missing_and_a_surplus_row_and_a_lost_page_are_seen() -> None:
    connection = words_of("one", "two", "three")
    assert words.problem(connection, np.array([1, 2, 3])) is None
    assert "1 items" in (words.problem(connection, np.array([1, 2, 3, 4])) or "")
    assert "1 without" in (words.problem(connection, np.array([1, 3])) or "")
    connection.execute("DELETE FROM words_data WHERE id = (SELECT max(id) FROM words_data)")
    assert words.problem(connection, np.array([1, 2, 3])) is not None


@pytest.mark.parametrize("kept", [0, 1, 30, 3_000])
def test_after_purge_and_vacuum_a_deleted_word_is_nowhere_in_the_file(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "store"
    connection = connect(path)
    connection.execute(words.SCHEMA)
    for start in range(0, kept, 100):  # many transactions, so that FTS5 has segments to merge
        rows = range(start + 1, min(start + 100, kept) + 1)
        with connection:
            words.insert(connection, [(row, f"kept{row % 97} common", {}) for row in rows])
    secrets = [(10_001, "qzxwvkjsecret common", {}), (10_002, "common", {"a": "qzxwvkjsecret"})]
    words.insert(connection, secrets)
    words.drop(connection, [10_001, 10_002])
    assert found(connection, "qzxwvkjsecret") == []
    words.purge(connection)
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"xwvkjsec" not in content  # FTS5 stores a word without what it shares with the last
    connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, words, row)")
    terms = {term for (term,) in connection.execute("SELECT term FROM terms")}
    assert "qzxwvkjsecret" not in terms
    assert len(found(connection, "common")) == kept
    assert words.problem(connection, np.arange(1, kept + 1)) is None
    connection.close()
