"""SQLite's pages with a checksum each: a damaged page is an error, never a wrong answer.

A VFS over the system's own. The last 8 bytes of every page of the database file are a CRC32 of
the rest; SQLite leaves them alone (its "reserved bytes"), so that indices and word lists are
covered like the data. The layout is that of SQLite's cksumvfs with another sum, and as there the
log has SQLite's own checksums. A CRC32 over so few bytes tells which single bit is wrong
(Koopman 2002: Hamming distance 4 up to 91,607 bits), so that a repair can mend it.
"""

from __future__ import annotations

import ctypes
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import apsw

from triptych.errors import CollectionDamaged
from triptych.index.sqlite.inner import inner_page

PAGE = 8_192  # three vectors of 512 numbers a page, instead of one in 4096 bytes
CHECKED = "triptych"
MENDING = "triptych-mending"
"""Names of the two VFS: the second mends what it can while it reads: a single wrong bit, and, of
a file without a log, the one page that is lost, if the others say what was on it."""

_MOST_ZEROS = 1 << 16  # SQLite writes less than 128 KB at once
_SUM = 8
_HALF = PAGE // 2
_HEADER = 100  # SQLite reads this much before it knows the size of a page
_RESERVED_AT = 20
_MARK = slice(68, 72)  # SQLite's application_id
# at this offset SQLite takes its locks; the page there is never written
_LOCKED_PAGE = 0x40000000 // PAGE + 1


def repair(path: Path) -> str:
    """Return the hint that helps where the store at `path` is damaged."""
    return f"Run: triptych verify --repair -c {shlex.quote(str(path.absolute().parent))}"


def summed(page: bytes) -> bytes:
    """Return the page with the sum of its content in its last bytes."""
    view = memoryview(page)
    return bytes(view[:-_SUM]) + _crc(view).to_bytes(_SUM, "little")


def intact(page: bytes) -> bool:
    """Whether the page is whole and its sum is right."""
    if len(page) != PAGE:
        return False
    view = memoryview(page)
    return _crc(view) == int.from_bytes(view[-_SUM:], "little")


def mended(page: bytes) -> bytes | None:
    """Return the page with its one wrong bit set right, None where more is wrong."""
    if len(page) != PAGE:
        return None
    wrong = _crc(memoryview(page)) ^ int.from_bytes(page[-_SUM:], "little")
    if wrong.bit_count() > 1:  # not in the sum itself
        at = _bit_by_syndrome().get(wrong)
        if at is None:
            return None
        raw = bytearray(page)
        raw[at // 8] ^= 1 << at % 8
        page = bytes(raw)
    return summed(page)


def damaged_pages(path: Path) -> Iterator[int]:
    """Yield the numbers of the pages of `path` that are not as they were written, from 1.

    A page of zeros is not counted: room that was taken, but not yet written to. Where somebody
    writes at the moment, a page may look damaged for a while.
    """
    nothing = bytes(PAGE)
    with _raw(path) as file:
        for at in range(0, file.xFileSize(), PAGE):
            page = file.xRead(PAGE, at)
            number = at // PAGE + 1
            if number != _LOCKED_PAGE and not intact(page) and page != nothing:
                yield number


def reserve_sums(connection: apsw.Connection) -> None:
    """Make a new database leave room for the sums; before anything is written to it."""
    connection.reserve_bytes("main", _SUM)


def mark_of(path: Path) -> int:
    """Return the application_id in the file itself, whatever its log says."""
    first = _first_page(path)
    if not intact(first):
        first = mended(first) or first
    return int.from_bytes(first[_MARK], "big")


def has_sums(path: Path) -> bool:
    """Whether the file says that its pages carry sums, or said so before a bit of it changed."""
    first = _first_page(path)
    if len(first) <= _RESERVED_AT or first[_RESERVED_AT] == _SUM:
        return True
    return intact(first[:_RESERVED_AT] + bytes([_SUM]) + first[_RESERVED_AT + 1 :])


def _first_page(path: Path) -> bytes:
    with _raw(path) as file:
        return file.xRead(PAGE, 0)


@contextmanager
def _raw(path: Path) -> Iterator[apsw.VFSFile]:
    """Yield the file as SQLite opens it.

    To close a descriptor of another kind would drop all locks that this process has on the file.
    """
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
    file = apsw.VFSFile("", str(path.absolute()), [flags, 0])
    try:
        yield file
    finally:
        file.xClose()


def _crc(page: memoryview) -> int:
    # in halves: for more than 5 KB zlib lets other threads run, and may wait long to go on
    return zlib.crc32(page[_HALF:-_SUM], zlib.crc32(page[:_HALF]))


@cache
def _bit_by_syndrome() -> dict[int, int]:
    """Return what each single wrong bit of the content does to the sum."""
    raw = bytearray(PAGE)
    zero = _crc(memoryview(raw))
    found = {}
    for bit in range(8 * (PAGE - _SUM)):
        raw[bit // 8] = 1 << bit % 8
        found[_crc(memoryview(raw)) ^ zero] = bit
        raw[bit // 8] = 0
    return found


class _CheckedFile(apsw.VFSFile):
    """The database file itself."""

    def __init__(self, name: apsw.URIFilename, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.name = name.filename()

    def xRead(self, amount: int, offset: int) -> bytes:
        data = super().xRead(amount, offset)
        if amount <= _HEADER or (amount == PAGE and intact(data)):
            return data
        return self.repaired(data, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(summed(data) if len(data) == PAGE else data, offset)

    def xFileControl(self, op: int, pointer: int) -> bool:
        if op != apsw.SQLITE_FCNTL_SIZE_HINT:
            return super().xFileControl(op, pointer)
        self._grow(ctypes.c_int64.from_address(pointer).value)
        return True

    def xDeviceCharacteristics(self) -> int:
        # else SQLite reads parts of pages, which have no sum
        return super().xDeviceCharacteristics() & ~apsw.SQLITE_IOCAP_SUBPAGE_READ

    def _grow(self, wanted: int) -> None:
        """Take room on the disk; SQLite would write a byte to each block of it, one by one."""
        size = self.xFileSize()
        while size < wanted:
            zeros = bytes(min(wanted - size, _MOST_ZEROS))
            super().xWrite(zeros, size)
            size += len(zeros)

    def repaired(self, data: bytes, offset: int) -> bytes:
        raise CollectionDamaged(
            f"Page {offset // PAGE + 1} of {self.name} is damaged: its checksum is wrong.",
            hint=repair(Path(self.name)),
        )


class _MendingFile(_CheckedFile):
    def __init__(self, name: apsw.URIFilename, flags: list[int]) -> None:
        super().__init__(name, flags)
        self._made: dict[int, bytes | None] = {}  # the first that was lost, by its number

    def xRead(self, amount: int, offset: int) -> bytes:
        if amount <= _HEADER and offset < _HEADER and self.xFileSize():
            return super().xRead(PAGE, 0)[offset : offset + amount]
        return super().xRead(amount, offset)

    def repaired(self, data: bytes, offset: int) -> bytes:
        return (
            mended(data) or self._made_again(offset // PAGE + 1) or super().repaired(data, offset)
        )

    def _made_again(self, number: int) -> bytes | None:
        log = Path(f"{self.name}-wal")
        if log.exists() and log.stat().st_size:  # pages may be others there
            return None
        if not self._made:  # of two that are lost neither can be told
            body = inner_page(self._whole, number, PAGE - _SUM, _LOCKED_PAGE)
            self._made[number] = body and summed(body + bytes(_SUM))
        return self._made.get(number)

    def _whole(self, number: int) -> bytes | None:
        page = super().xRead(PAGE, (number - 1) * PAGE)
        return page if intact(page) or not any(page) else mended(page)


class _CheckedPages(apsw.VFS):
    def __init__(self, name: str, kind: type[_CheckedFile]) -> None:
        super().__init__(name, "")
        self._kind = kind

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if isinstance(name, apsw.URIFilename) and flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return self._kind(name, flags)
        return apsw.VFSFile("", name, flags)


# SQLite keeps them by name for as long as the process lives
_REGISTERED = (_CheckedPages(CHECKED, _CheckedFile), _CheckedPages(MENDING, _MendingFile))
