"""An inner page of a table that is lost, made again of the pages below it.

All that it says is which pages those are, and with which row each of them ends: where it is the
only page that is lost, those are the ones that no other page leads to. Its loss would take the
rows of all of them along, that of a root the whole table.

The file format of SQLite: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Read = Callable[[int], bytes | None]
"""Returns a page by its number, from 1; None where it is damaged."""

_INNER, _LEAF, _INNER_OF_INDEX = 5, 13, 2
_HEADER = 100  # of the file, at the start of the first page
_INTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes of an integer by its serial type


class _Unknown(Exception):
    """Another page is lost, or something is not as it has to be."""


def inner_page(read: Read, lost: int, usable: int, unwritten: int) -> bytes | None:
    """Return the `usable` bytes of the page `lost`, None where they cannot be told.

    The page `unwritten` has no content. Reads every page about twice.
    """
    try:
        below = _led_nowhere(_Pages(read, usable), lost, unwritten)
    except (_Unknown, IndexError):
        return None
    return _packed(below, usable) if below else None


class _Pages:
    """Looks into pages; raises _Unknown where one is lost."""

    def __init__(self, read: Read, usable: int) -> None:
        self._read = read
        self._usable = usable

    def __getitem__(self, number: int) -> bytes:
        page = self._read(number)
        if page is None:
            raise _Unknown
        return page[: self._usable]

    def count(self) -> int:
        """Return how many pages the database has; the file may be longer."""
        return _number(self[1], 28)

    def free(self) -> set[int]:
        """Return the pages that are not in use, whatever is still on them."""
        found: set[int] = set()
        trunk = _number(self[1], 32)
        while trunk:
            if trunk in found:
                raise _Unknown
            page = self[trunk]
            found |= {trunk, *(_number(page, 8 + 4 * at) for at in range(_number(page, 4)))}
            trunk = _number(page, 0)
        return found

    def roots(self) -> set[int]:
        """Return the first pages of all tables and indices, as the schema has them."""
        found, waiting = {1}, [1]
        while waiting:
            number = waiting.pop()
            page = self[number]
            if page[_start(number)] == _INNER:
                waiting += _children(page, number)
            else:
                found |= {_root(page[at:]) for at in _cells(page, number)}
        return found

    def last_row(self, number: int) -> int:
        """Return the last row of a table's page, or of those below it."""
        page = self[number]
        while page[0] == _INNER:
            page = self[_number(page, 8)]
        *_, last = _cells(page, 2)
        _, at = _varint(page, last)
        return _varint(page, at)[0]


def _led_nowhere(pages: _Pages, lost: int, unwritten: int) -> list[tuple[int, int]]:
    """Return last row and number of the table pages that no page leads to, ascending by row."""
    free, roots = pages.free(), pages.roots()
    of_tables: set[int] = set()
    led_to: set[int] = set()
    for number in range(1, pages.count() + 1):
        if number in free or number in (lost, unwritten):
            continue
        page = pages[number]
        kind = page[_start(number)]
        if kind in (_INNER, _INNER_OF_INDEX):
            led_to.update(_children(page, number))
        if kind in (_INNER, _LEAF):
            of_tables.add(number)
    return sorted((pages.last_row(number), number) for number in of_tables - led_to - roots)


def _children(page: bytes, number: int) -> Iterator[int]:
    """Yield the pages that an inner page leads to."""
    for at in _cells(page, number):
        yield _number(page, at)
    yield _number(page, _start(number) + 8)


def _packed(below: list[tuple[int, int]], usable: int) -> bytes | None:
    """Return a page that leads to those below; None where it has not the room."""
    *first, (_, rightmost) = below
    page = bytearray(usable)
    end, at = usable, 12 + 2 * len(first)
    for place, (row, number) in enumerate(first):
        cell = number.to_bytes(4, "big") + _as_varint(row)
        end -= len(cell)
        if end < at:
            return None
        page[end : end + len(cell)] = cell
        page[12 + 2 * place : 14 + 2 * place] = end.to_bytes(2, "big")
    page[0] = _INNER
    page[3:5] = len(first).to_bytes(2, "big")
    page[5:7] = end.to_bytes(2, "big")
    page[8:12] = rightmost.to_bytes(4, "big")
    return bytes(page)


def _start(number: int) -> int:
    return _HEADER if number == 1 else 0


def _cells(page: bytes, number: int) -> Iterator[int]:
    """Yield where the cells of a page begin."""
    start = _start(number)
    first = start + (12 if page[start] in (_INNER, _INNER_OF_INDEX) else 8)
    for at in range(first, first + 2 * _short(page, start + 3), 2):
        yield _short(page, at)


def _root(cell: bytes) -> int:
    """Return the root page in a row of the schema: type, name, tbl_name, rootpage, sql."""
    _, at = _varint(cell, 0)
    start = _varint(cell, at)[1]
    at = _varint(cell, start)[1]
    kinds = []
    for _ in range(4):
        kind, at = _varint(cell, at)
        kinds.append(kind)
    body = start + _varint(cell, start)[0] + sum((kind - 12) // 2 for kind in kinds[:3])
    size = _INTS.get(kinds[3], 0)
    return int.from_bytes(cell[body : body + size], "big") if size else int(kinds[3] == 9)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number of SQLite's and where it ends."""
    value = 0
    for end in range(at, at + 8):
        value = value << 7 | raw[end] & 127
        if raw[end] < 128:
            return value, end + 1
    return value << 8 | raw[at + 8], at + 9


def _as_varint(value: int) -> bytes:
    """Return a row, which is 0 or more and far below 2**56."""
    raw = [value & 127]
    while value := value >> 7:
        raw.append(value & 127 | 128)
    return bytes(reversed(raw))


def _short(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 2], "big")


def _number(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 4], "big")
