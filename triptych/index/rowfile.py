"""Rows and their vectors in one immutable, memory-mapped file that notices every flipped bit.

Layout, little-endian: a header of 4096 bytes; the vectors, row by row; the row numbers, int64
ascending; one CRC32 for each block of vectors. Header, row numbers and sums are checked when the
file is opened, a block of vectors before it is used for the first time.

Where memory is short, the system reads what is touched. Left alone it reads megabytes around each
row and drops others for them; so it is told that rows are picked, and, once that has taken long,
which ones in advance: all at once they take a fifth of the time.

Letters: N rows in the file, K chosen ones, M embedding width. A position is 0..N-1.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych.errors import CollectionDamaged, InvalidInput
from triptych.index.base import (
    Positions,
    checked_dim,
    exact_scores,
    halved,
    near_the_cut,
    ranked,
    rough_scores,
    widened,
)
from triptych.types import Matrix, Precision, Rows, Vector

_MAGIC = b"TRIPROWS"
_VERSION = 1
_PAGE = 4096
_BLOCK = 65_536
_CHUNK = 4_194_304
_BLOCKS_AT_ONCE = 64
_MANY = 256  # rows: as many in a row are cheap to ask for in advance
_WAITED_FOR_ROW = 3e-6  # seconds: a row in memory takes a tenth of it, one on the disk ten times it
_WAITED_FOR_CHUNK = 2e-2
_TO_FULL = np.float32(2.0**112)  # the exponent of a float32 is greater by so much
_NUMBERS: dict[str, np.dtype[Any]] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}


@dataclass(frozen=True, slots=True)
class _Header:
    count: int
    dim: int
    width: int  # bytes of a number
    tail_sum: int  # CRC32 of all that follows the vectors

    _FIELDS = struct.Struct("<8sIQIII")

    @property
    def per_block(self) -> int:
        return max(1, _BLOCK // (self.dim * self.width))

    @property
    def num_blocks(self) -> int:
        return -(-self.count // self.per_block)

    @property
    def tail(self) -> int:
        """Where the row numbers begin: eight bytes each, so at a multiple of eight."""
        return _PAGE + -(-self.count * self.dim * self.width // 8) * 8

    @property
    def size(self) -> int:
        return self.tail + 8 * self.count + 4 * self.num_blocks

    def packed(self) -> bytes:
        fields = self._FIELDS.pack(
            _MAGIC, _VERSION, self.count, self.dim, self.width, self.tail_sum
        )
        padded = fields.ljust(_PAGE - 4, b"\0")
        return padded + struct.pack("<I", zlib.crc32(padded))

    @classmethod
    def unpacked(cls, page: bytes) -> Self:
        """Return the header; raises ValueError where it is none."""
        if len(page) != _PAGE or page[:8] != _MAGIC:
            raise ValueError("it is no row file")
        if struct.unpack("<I", page[-4:])[0] != zlib.crc32(page[:-4]):
            raise ValueError("its header is damaged")
        _, version, *fields = cls._FIELDS.unpack_from(page)
        if version != _VERSION:
            raise ValueError(f"it has version {version}, this program reads {_VERSION}")
        return cls(*fields)


class RowFile:
    """A row file, open for reading; any number of threads may read."""

    def __init__(self, path: Path, descriptor: int, memory: mmap.mmap, header: _Header) -> None:
        """Take over the descriptor."""
        weakref.finalize(self, os.close, descriptor)
        self._path = path
        self._descriptor = descriptor
        self._memory = memory
        self._header = header
        self._waited = False  # the last time that rows were picked
        number = "<f4" if header.width == 4 else "<f2"
        shape = (header.count, header.dim)
        self._vectors_NM = np.frombuffer(
            memory, number, count=header.count * header.dim, offset=_PAGE
        ).reshape(shape)
        self.rows_N: Rows = np.frombuffer(memory, "<i8", count=header.count, offset=header.tail)
        self._sums = np.frombuffer(memory, "<u4", offset=header.tail + 8 * header.count)
        self._checked = np.zeros(header.num_blocks, dtype=bool)
        self._all_checked = not header.num_blocks

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file; raises CollectionDamaged where it is missing, torn, or no row file."""
        try:
            with path.open("rb") as file:
                header = _Header.unpacked(file.read(_PAGE))
                size = os.fstat(file.fileno()).st_size
                if size != header.size:
                    raise ValueError(f"it has {size} bytes, expected {header.size}")
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                with memoryview(memory) as view, view[header.tail :] as tail:
                    if zlib.crc32(tail) != header.tail_sum:
                        raise ValueError("its row numbers or checksums are damaged")
                if hasattr(mmap, "MADV_RANDOM"):
                    memory.madvise(mmap.MADV_RANDOM, 0, header.tail)
                return cls(path, os.dup(file.fileno()), memory, header)
        except (OSError, ValueError, struct.error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CollectionDamaged(f"The index's {path.name} cannot be used: {reason}.") from None

    @staticmethod
    def write(
        path: Path, chunks: Iterable[tuple[Rows, Matrix]], *, dim: int, precision: Precision
    ) -> int:
        """Write unit rows, ascending over all chunks, and return how many; on the disk after that.

        Never more than a chunk is in memory. Raises InvalidInput where rows do not ascend, OSError.
        """
        number = _NUMBERS[precision]
        header = _Header(0, checked_dim(dim), number.itemsize, 0)
        all_rows: list[Rows] = []
        sums = _Sums(header.per_block * dim * number.itemsize)
        with path.open("xb") as file:
            file.write(bytes(_PAGE))
            for rows_N, vectors_NM in chunks:
                if vectors_NM.shape != (len(rows_N), dim):
                    raise InvalidInput(f"Got {vectors_NM.shape}, expected ({len(rows_N)}, {dim}).")
                narrow_NM = halved(vectors_NM) if precision == "fp16" else vectors_NM
                content = np.ascontiguousarray(narrow_NM, dtype=number).tobytes()
                file.write(content)
                sums.add(content)
                all_rows.append(np.asarray(rows_N, dtype="<i8"))
            rows_N = np.concatenate([np.empty(0, "<i8"), *all_rows])
            if (np.diff(rows_N, prepend=-1) <= 0).any():
                raise InvalidInput("The rows of a row file ascend.")
            tail = rows_N.tobytes() + np.array(sums.finish(), dtype="<u4").tobytes()
            header = _Header(len(rows_N), dim, number.itemsize, zlib.crc32(tail))
            file.write(bytes(header.tail - file.tell()) + tail)
            file.seek(0)
            file.write(header.packed())
            file.flush()
            os.fsync(file.fileno())
        return len(rows_N)

    @staticmethod
    def bytes_for(count: int, dim: int, precision: Precision) -> int:
        """Return the size of a file of so many rows."""
        return _Header(count, dim, _NUMBERS[precision].itemsize, 0).size

    def __len__(self) -> int:
        return self._header.count

    @property
    def dim(self) -> int:
        return self._header.dim

    @property
    def precision(self) -> Precision:
        return "fp32" if self._header.width == 4 else "fp16"

    @property
    def seal(self) -> str:
        """The SHA-256 of the header, which through its sums depends on every byte of the file."""
        return hashlib.sha256(self._header.packed()).hexdigest()

    def positions_of(self, rows_K: Rows) -> Positions:
        """Return the positions of those rows that are here, in their order."""
        if not len(self):
            return np.empty(0, dtype=np.intp)
        first, last = self.rows_N[[0, -1]].tolist()
        if last - first == len(self) - 1:  # without a gap there is nothing to look up
            return np.asarray(rows_K[(rows_K >= first) & (rows_K <= last)] - first)
        at_K = np.minimum(np.searchsorted(self.rows_N, rows_K), len(self) - 1)
        return np.asarray(at_K[self.rows_N[at_K] == rows_K])

    def gather(self, positions_K: Positions) -> Matrix:
        """Return float32 unit rows; raises CollectionDamaged where a block is damaged."""
        found_KM = self._taken(positions_K)
        return found_KM if self._header.width == 4 else widened(found_KM)

    def chunks(self) -> Iterator[tuple[Rows, Matrix]]:
        """Yield rows and float32 unit vectors, all of them in order, a few megabytes at a time."""
        for start, end in self._pieces(len(self)):
            yield self.rows_N[start:end], self.gather(np.arange(start, end))

    def scores(self, query_M: Vector, positions_K: Positions) -> Vector:
        """Return the exact cosines."""
        scores_K = np.empty(len(positions_K), dtype=np.float32)
        for start, end in self._pieces(len(positions_K)):
            scores_K[start:end] = exact_scores(self.gather(positions_K[start:end]), query_M)
        return scores_K

    def best(self, query_M: Vector, k: int, positions_N: Positions) -> tuple[Rows, Vector]:
        """Return the k best of the chosen positions with their exact cosines, ties by row."""
        rough_N = np.empty(len(positions_N), dtype=np.float32)
        for start, end in self._pieces(len(positions_N)):
            rough_N[start:end] = _rough(self._taken(positions_N[start:end]), query_M)
        near_K = positions_N[near_the_cut(rough_N, k)]
        return ranked(self.rows_N[near_K], self.scores(query_M, near_K), k)

    def best_of_all(
        self, query_M: Vector, k: int, *, without: NDArray[np.bool_] | None = None
    ) -> tuple[Rows, Vector]:
        """Return the k best of all, leaving out positions; equal to `best` but without copying."""
        rough_N = np.empty(len(self), dtype=np.float32)
        for start, end in self._read_through():
            rough_N[start:end] = _rough(self._vectors_NM[start:end], query_M)
        if without is None:
            near_K = near_the_cut(rough_N, k)
        else:
            left_N = np.flatnonzero(~without)
            near_K = left_N[near_the_cut(rough_N[left_N], k)]
        return ranked(self.rows_N[near_K], self.scores(query_M, near_K), k)

    def verify(self) -> None:
        """Check every block; raises CollectionDamaged with the first that is damaged."""
        self._check(np.arange(self._header.num_blocks))

    def _taken(self, positions_K: Positions) -> NDArray[Any]:
        """Return copies of vectors as they are stored."""
        if not self._all_checked:
            self._check(np.unique(positions_K // self._header.per_block))
        start = time.perf_counter()
        self._announce(positions_K)
        found_KM = self._vectors_NM.take(positions_K, axis=0)
        self._waited = time.perf_counter() - start > _WAITED_FOR_ROW * (1 + len(positions_K))
        return found_KM

    def _announce(self, positions_K: Positions) -> None:
        """Have the system read rows, where it may have to."""
        if len(positions_K) > _MANY and 0 < positions_K[-1] - positions_K[0] < 2 * len(positions_K):
            first, end = int(positions_K[0]), int(positions_K[-1]) + 1
            self._will_need(end, 2 * end - first)  # whoever reads so many goes on
        elif self._waited:
            for position in positions_K.tolist():
                self._will_need(position, position + 1)

    def _will_need(self, start: int, end: int) -> None:
        end = min(end, len(self))
        if start < end and hasattr(os, "posix_fadvise"):
            size = self.dim * self._header.width
            os.posix_fadvise(
                self._descriptor, _PAGE + start * size, (end - start) * size, os.POSIX_FADV_WILLNEED
            )

    def _read_through(self) -> Iterator[tuple[int, int]]:
        """Yield where the pieces of the whole begin and end, ready to be read."""
        waited = False
        for start, end in self._pieces(len(self)):
            if waited or not self._all_checked:
                self._will_need(end, 2 * end - start)
            if not self._all_checked:
                per_block = self._header.per_block
                self._check(np.arange(start // per_block, -(-end // per_block)))
            before = time.perf_counter()
            yield start, end
            waited = waited or time.perf_counter() - before > _WAITED_FOR_CHUNK

    def _pieces(self, num: int) -> Iterator[tuple[int, int]]:
        step = max(1, _CHUNK // (4 * self.dim))
        for start in range(0, num, step):
            yield start, min(start + step, num)

    def _check(self, blocks: Positions) -> None:
        per_block = self._header.per_block
        new = blocks[~self._checked[blocks]]
        for at, block in enumerate(new.tolist()):
            if at % _BLOCKS_AT_ONCE == 0 and len(new) > 1:
                for soon in new[at : at + 2 * _BLOCKS_AT_ONCE].tolist():
                    self._will_need(soon * per_block, (soon + 1) * per_block)
            self._check_block(block)
        if len(new) and self._checked.all():
            self._all_checked = True

    def _check_block(self, block: int) -> None:
        """Read it by a call: where the disk fails, that raises; a mapped page would kill."""
        first, row = block * self._header.per_block, self.dim * self._header.width
        rows_N = self.rows_N[first : first + self._header.per_block]
        try:
            content = os.pread(self._descriptor, len(rows_N) * row, _PAGE + first * row)
        except OSError:
            content = b""
        if zlib.crc32(content) != self._sums[block]:
            raise CollectionDamaged(
                f"The index's {self._path.name} is damaged in rows {rows_N[0]} to {rows_N[-1]}."
            )
        self._checked[block] = True


def _rough(vectors_NM: NDArray[Any], query_M: Vector) -> Vector:
    """Return cosines good to 1e-5; halves are not of unit length to that precision."""
    if vectors_NM.dtype == np.float32:
        return rough_scores(vectors_NM, query_M)
    rough_N = np.empty(len(vectors_NM), dtype=np.float32)
    step = max(1, _BLOCK // len(query_M))  # as many as a processor's own memory holds
    for start in range(0, len(vectors_NM), step):
        full_NM = _full(vectors_NM[start : start + step])
        squares_N = np.einsum("nm,nm->n", full_NM, full_NM)
        rough_N[start : start + step] = rough_scores(full_NM, query_M) / np.sqrt(squares_N)
    return rough_N


def _full(halves_NM: NDArray[np.float16]) -> Matrix:
    """Return finite halves as float32, in a third of the time that numpy takes to convert them.

    Sign, exponent and fraction move to their places (what moves between them is cleared).
    """
    bits_NM = halves_NM.view(np.int16).astype(np.int32)
    bits_NM <<= 13
    bits_NM &= ~0x70000000
    full_NM = bits_NM.view(np.float32)
    full_NM *= _TO_FULL
    return full_NM


class _Sums:
    """CRC32 over blocks of bytes that arrive in pieces of any size."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._sums: list[int] = []
        self._rest = b""

    def add(self, content: bytes) -> None:
        content = self._rest + content
        whole = len(content) - len(content) % self._block
        view = memoryview(content)
        for start in range(0, whole, self._block):
            self._sums.append(zlib.crc32(view[start : start + self._block]))
        self._rest = content[whole:]

    def finish(self) -> list[int]:
        return [*self._sums, zlib.crc32(self._rest)] if self._rest else self._sums
