"""Every wrong bit of a page is noticed, and a single one can be set right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.pages import (
    MENDING,
    PAGE,
    damaged_pages,
    has_sums,
    intact,
    mended,
    summed,
)

ROWS = 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    database = Database(path)
    with database.writing() as connection:
        connection.execute("CREATE TABLE t (row INTEGER PRIMARY KEY, key UNIQUE, value)")
        connection.execute("CREATE VIRTUAL TABLE w USING fts5(text)")
        rng = random.Random(0)
        for row in range(ROWS):
            connection.execute(
                "INSERT INTO t VALUES (?, ?, ?)", (row, str(row), rng.randbytes(500))
            )
            connection.execute("INSERT INTO w VALUES (?)", (f"word{row} other",))
    database.trust()
    database.close()
    return path


def read_everything(path: Path, vfs: str) -> list[object]:
    database = Database(path, vfs=vfs)
    try:
        with database.reading() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [
                connection.execute("SELECT * FROM t ORDER BY row").fetchall(),
                connection.execute("SELECT key, row FROM t ORDER BY key").fetchall(),
                connection.execute("SELECT rowid FROM w WHERE w MATCH 'other'").fetchall(),
            ]
    finally:
        database.close()


def places(size: int) -> Iterator[int]:
    """Yield the bits of the header that SQLite reads alone, and some of every page."""
    yield from (8 * byte + byte % 8 for byte in range(100))
    rng = random.Random(1)
    for page in range(size // PAGE):
        for _ in range(4):
            yield 8 * PAGE * page + rng.randrange(8 * PAGE)


def test_every_flipped_bit_is_noticed_and_can_be_mended(path: Path) -> None:
    raw, expected = path.read_bytes(), read_everything(path, "triptych")
    assert len(raw) > 20 * PAGE and not list(damaged_pages(path))
    with path.open("r+b") as file:
        for number, bit in enumerate(places(len(raw))):
            byte = bit // 8
            file.seek(byte)
            file.write(bytes([raw[byte] ^ 1 << bit % 8]))
            file.flush()
            assert list(damaged_pages(path)) == [byte // PAGE + 1]
            with pytest.raises(CollectionDamaged):
                read_everything(path, "triptych")
            if number % 5 == 0:
                assert read_everything(path, MENDING) == expected
            file.seek(byte)
            file.write(raw[byte : byte + 1])
            file.flush()


def test_the_message_names_page_and_file_and_command(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5 * PAGE + 17)
        file.write(b"?!")
    with pytest.raises(CollectionDamaged, match=r"Page 6 of .*/db is.*triptych verify --repair"):
        read_everything(path, "triptych")


@pytest.mark.parametrize("kept", [3.5, 1.0, 0.01])
def test_a_file_cut_short_is_noticed(path: Path, kept: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(kept * PAGE))
    with pytest.raises(CollectionDamaged):
        read_everything(path, "triptych")


def test_more_than_one_bit_is_not_mended_into_something_else() -> None:
    rng = random.Random(2)
    page = summed(rng.randbytes(PAGE))
    assert intact(page) and mended(page) == page
    for _ in range(300):
        raw = bytearray(page)
        wrong = rng.sample(range(8 * PAGE), 2)
        for bit in wrong:
            raw[bit // 8] ^= 1 << bit % 8
        assert not intact(bytes(raw))
        # two wrong bits can look like one wrong bit of the sum's padding, never like another page
        assert mended(bytes(raw)) in (None, page)


def test_pages_survive_a_vacuum_and_other_writers_of_the_file(path: Path) -> None:
    expected = read_everything(path, "triptych")
    database = Database(path)
    with database.writing() as connection:
        connection.execute("CREATE TABLE big (x)")
        connection.executemany("INSERT INTO big VALUES (?)", [(bytes(9000),)] * 50)
    with database.writing() as connection:
        connection.execute("DROP TABLE big")
    database.vacuum()
    assert not list(damaged_pages(path))
    database.close()
    assert read_everything(path, "triptych") == expected


def test_an_empty_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.close()
    assert not has_sums(path)
    database = Database(path)
    with pytest.raises(CollectionDamaged, match="empty database"), database.creating():
        pass
    database.close()


def test_closed_and_gone_are_sentences(path: Path) -> None:
    database = Database(path)
    path.rename(path.with_name("other"))
    for attempt in (database.reading, database.own_reading, database.writing):
        with pytest.raises(NotAvailable, match="removed or replaced"), attempt():
            pass
    assert not path.exists()
    path.with_name("other").rename(path)
    database.close()
    database.close()
    with pytest.raises(NotAvailable, match="closed"), database.reading():
        pass
