"""Inner pages of tables are made again: SQLite then reads what was there."""

from __future__ import annotations

import random

import apsw

from triptych.index.sqlite.inner import inner_page

SIZE = 512
INNER = 5


def database(rows: int) -> bytes:
    """Return one with trees of some levels, long rows, an index and pages that are free again."""
    connection, rng = apsw.Connection(":memory:"), random.Random(0)
    connection.execute(f"PRAGMA page_size = {SIZE}")
    for name in ("one", "two", *(f"some_more_{at}" for at in range(20))):
        connection.execute(f"CREATE TABLE {name} (row INTEGER PRIMARY KEY, said TEXT)")
    connection.execute("CREATE INDEX by_said ON one (said)")
    for table in ("one", "two"):
        connection.executemany(
            f"INSERT INTO {table} VALUES (?, ?)",
            ((at * 7, "x" * rng.choice((9, 9, 9, 40, 900))) for at in range(1, rows)),
        )
    connection.execute("DELETE FROM two WHERE row BETWEEN 700 AND 2500")
    connection.execute("DELETE FROM one WHERE row BETWEEN 100 AND 900")
    assert connection.execute("PRAGMA freelist_count").get > 3
    return bytes(connection.serialize("main"))


def told(raw: bytes) -> list[object]:
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", raw)
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("one", "two")]


def pages_of(raw: bytes) -> dict[int, bytes | None]:
    return {at // SIZE + 1: raw[at : at + SIZE] for at in range(0, len(raw), SIZE)}


def test_every_inner_page_can_be_told_from_the_others() -> None:
    raw = database(1_500)
    pages, expected = pages_of(raw), told(raw)
    made = 0
    for lost in pages:
        body = without(pages, lost)
        if body is None:
            assert lost == 1 or raw[(lost - 1) * SIZE] != INNER or not is_used(raw, lost)
            continue
        made += 1
        assert told(raw[: (lost - 1) * SIZE] + body + raw[lost * SIZE :]) == expected
    assert made > 10


def is_used(raw: bytes, page: int) -> bool:
    """Whether SQLite misses the page."""
    connection = apsw.Connection(":memory:")
    at = (page - 1) * SIZE
    connection.deserialize("main", raw[:at] + bytes(SIZE) + raw[at + SIZE :])
    return connection.execute("PRAGMA integrity_check").get != "ok"


def test_of_two_that_are_lost_nothing_is_guessed() -> None:
    pages = pages_of(database(600))
    inner = [number for number in pages if number > 1 and (pages[number] or b"\0")[0] == INNER]
    whole = without(pages, inner[0])
    assert whole is not None
    for other in random.Random(1).sample(sorted(pages.keys() - {inner[0]}), 30):
        # of a free page, which is not looked at, the loss does not matter
        assert without({**pages, other: None}, inner[0]) in (None, whole)


def without(pages: dict[int, bytes | None], lost: int) -> bytes | None:
    return inner_page({**pages, lost: None}.get, lost, SIZE, 0)


def test_a_database_of_noise_is_no_error() -> None:
    rng = random.Random(1)
    for _ in range(100):
        pages = {number: rng.randbytes(SIZE) for number in range(1, 9)}
        if rng.random() < 0.5:
            pages[1] = bytes([0] * 28 + [0, 0, 0, 8]) + bytes(68) + b"\x0d" + rng.randbytes(411)
        inner_page(pages.get, 5, SIZE, 0)
