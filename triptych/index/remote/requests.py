"""What one process asks of the one that writes, and what that one answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Entry, FileState, Tokens
from triptych.types import Matrix, Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Write:
    """Store these items, their vectors being of the model with this fingerprint."""

    entries: Sequence[Entry]
    replace: bool
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove what is there of these ids."""

    ids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Note how the files behind these rows look now."""

    states: Mapping[int, FileState]


@dataclass(frozen=True, slots=True)
class Compact:
    """Give space back."""


@dataclass(frozen=True, slots=True)
class BeginSpace:
    """Make room for the vectors of another model, or say where it is; its number is the reply."""

    space: Space  # the number is not known yet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PutVectors:
    """Store vectors, and token states where it keeps them, in the space of this number."""

    space: int
    rows_N: Rows
    vectors_NM: Matrix
    states: Sequence[Tokens | None] = ()


@dataclass(frozen=True, slots=True)
class SwitchSpace:
    """Search the space of this number from now on."""

    space: int
    from_thumbnails: bool  # where a last picture is lost


@dataclass(frozen=True, slots=True)
class DropSpace:
    """Delete the space of this number."""

    space: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Say that you are there; answered by ACCEPTED alone."""


Request: TypeAlias = (
    Write | Delete | Touch | Compact | BeginSpace | PutVectors | SwitchSpace | DropSpace | Ping
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How many items were written, removed or touched, and the store's sequence after it."""

    number: int
    sequence: int
