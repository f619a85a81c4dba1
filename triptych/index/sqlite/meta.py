"""What a store says about itself: its format, its birth, its model, how far it is."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.sqlite import facts, tokens, words
from triptych.index.sqlite.database import Database, transaction
from triptych.index.sqlite.errors import translated
from triptych.index.sqlite.pages import has_sums, mark_of
from triptych.types import Precision

FORMAT = 3  # 2 is without fresh facts: the first write brings it up to this
_READ = (2, FORMAT)
_MARK = 8  # hexadecimal digits

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

# removed: the rows that went with each change after `floor`, so that an index can follow
# epochs: each process that writes leaves a name and the sequence it began at, so that an index
# saved along another history (a backup was restored, a folder was copied) is told apart
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE items (
    row INTEGER PRIMARY KEY, checksum BLOB NOT NULL,
    id NOT NULL UNIQUE, modality TEXT NOT NULL, text, uri, metadata TEXT NOT NULL,
    content TEXT, root, size INTEGER, mtime_ns INTEGER
);
CREATE TABLE spaces (
    space INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL, precision TEXT NOT NULL
);
CREATE TABLE thumbnails (row INTEGER PRIMARY KEY, jpeg BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE removed (
    sequence INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (sequence, row)
) WITHOUT ROWID;
CREATE TABLE epochs (sequence INTEGER NOT NULL, epoch TEXT NOT NULL);
"""


_SPACES = f"SELECT space, model, fingerprint, dim, precision, {tokens.WIDTH} FROM spaces"  # noqa: S608


class Space(NamedTuple):
    """The vectors of one model: one row for each item, in a table of their own."""

    space: int
    model: str
    fingerprint: str
    dim: int
    precision: Precision
    token_width: int = 0  # of the token states kept beside the vectors; 0: none are


class Meta(NamedTuple):
    """What a collection says about itself."""

    format: int
    collection: str  # unique for ever
    model: str
    fingerprint: str
    dim: int
    created: float
    precision: Precision
    space: int
    token_width: int = 0  # as of its space


@dataclass(frozen=True, slots=True)
class State:
    """How far a store is."""

    sequence: int  # grows by one with each change
    count: int
    last_row: int  # the highest that was ever given
    floor: int  # changes after this sequence can be replayed


def create(connection: apsw.Connection, space: Space) -> None:
    """Make the tables, unless another process was faster."""
    with transaction(connection, "IMMEDIATE"):
        if not is_blank(connection):
            return
        connection.execute(_SCHEMA)
        connection.execute(facts.SCHEMA)
        connection.execute(words.SCHEMA)
        number = add_space(connection, space)
        rows = {
            "format": FORMAT,
            "collection": _new_id(connection),
            "created": time.time(),
            "space": number,
            **asdict(State(0, 0, 0, 0)),
        }
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())


def bring_up(connection: apsw.Connection) -> None:
    """Make what a store of an older format lacks; inside of a transaction that writes."""
    if connection.execute("SELECT value FROM meta WHERE key = 'format'").get != FORMAT:
        connection.execute(facts.FRESH)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (FORMAT,))


def add_space(connection: apsw.Connection, space: Space) -> int:
    """Make tables for the vectors of a model, and its token states where it has a width.

    Returns its number, which is never used again.
    """
    insert = (
        "INSERT INTO spaces(model, fingerprint, dim, precision) VALUES (?, ?, ?, ?) RETURNING space"
    )
    number = int(connection.execute(insert, space[1:5]).get)
    connection.execute(
        f"CREATE TABLE vectors_{number} "
        "(row INTEGER PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
    )
    if space.token_width:
        tokens.create(connection, number, space.token_width)
    return number


def space_for(connection: apsw.Connection, wanted: Space) -> Space:
    """Return the space of a model that keeps states of the wanted width, begun where it was not.

    Another than the one that is searched, which can but lose its states.
    """
    current = current_space(connection)
    alike = [one for one in read_spaces(connection) if one[2:5] == wanted[2:5]]
    for space in alike:
        if space != current:
            return _with_tokens(connection, space, wanted.token_width)
    if not alike or wanted.token_width:
        return wanted._replace(space=add_space(connection, wanted))
    if current.token_width:
        turn_to(connection, current)
    return _with_tokens(connection, current, 0)


def turn_to(connection: apsw.Connection, space: Space) -> None:
    """Search a space; an index that follows can replay nothing of before, and loads all anew."""
    state = read_state(connection)
    sequence = state.sequence + 1
    connection.execute("UPDATE meta SET value = ? WHERE key = 'space'", (space.space,))
    connection.execute("DELETE FROM removed")
    write_state(connection, state, replace(state, sequence=sequence, floor=sequence))


def _with_tokens(connection: apsw.Connection, space: Space, width: int) -> Space:
    if space.token_width == width:
        return space
    tokens.drop(connection, space.space)
    if width:
        tokens.create(connection, space.space, width)
    return space._replace(token_width=width)


def is_blank(connection: apsw.Connection) -> bool:
    """Whether there is no schema yet."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").get == 0)


def read_meta(connection: apsw.Connection, path: Path | None) -> Meta:
    """Return the meta; raises NotAvailable for another format, or a database that is no store.

    CollectionDamaged where a store does not say what it is.
    """
    with translated(path):
        found = _said(connection, path)
        written, created = found.get("format"), found.get("created")
        if isinstance(written, int) and written > FORMAT:
            raise NotAvailable(
                f"{path} has format {written}, this Triptych reads up to {FORMAT}.",
                hint="Run: pip install --upgrade triptych",
            )
        if isinstance(written, int) and 0 < written < _READ[0]:
            raise NotAvailable(
                f"{path} has format {written}, this Triptych reads from {_READ[0]} to {FORMAT}.",
                hint="Index again, into a new collection.",
            )
        if written is None and path is not None and not has_sums(path):
            raise NotAvailable(
                f"{path} is a database that no collection made.",
                hint="Name another folder, or put the collection's own file back.",
            )
        if written not in _READ or not isinstance(created, float):
            raise CollectionDamaged(f"{path} does not say which model it belongs to.")
        space = current_space(connection)
        read_state(connection)
        collection = str(found.get("collection"))
        _check_mark(collection, path)
    return Meta(
        format=int(str(written)),
        collection=collection,
        model=space.model,
        fingerprint=space.fingerprint,
        dim=space.dim,
        created=created,
        precision=space.precision,
        space=space.space,
        token_width=space.token_width,
    )


def _said(connection: apsw.Connection, path: Path | None) -> dict[str, object]:
    try:
        return dict(connection.execute("SELECT key, value FROM meta"))
    except apsw.SQLError:  # there is no such table
        if path is None or has_sums(path):
            raise
        return {}


def current_space(connection: apsw.Connection) -> Space:
    """Return the space that is searched; raises CollectionDamaged where there is none."""
    query = f"{_SPACES} WHERE space = (SELECT value FROM meta WHERE key = 'space')"  # noqa: S608
    found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    if not found or found[0][4] not in PRECISIONS or found[0][3] < 1:
        raise CollectionDamaged("The store does not say which model it belongs to.")
    return Space(*found[0])


def read_spaces(connection: apsw.Connection) -> list[Space]:
    """Return every space, by number."""
    found: list[tuple[Any, ...]] = connection.execute(f"{_SPACES} ORDER BY space").fetchall()
    return [Space(*columns) for columns in found]


def read_state(connection: apsw.Connection) -> State:
    """Return how far the store is; raises CollectionDamaged where it does not say."""
    keys = "('sequence', 'count', 'last_row', 'floor')"
    found = dict(connection.execute(f"SELECT key, value FROM meta WHERE key IN {keys}"))  # noqa: S608
    try:
        return State(**found)
    except TypeError:
        raise CollectionDamaged("The store does not say how many items it holds.") from None


def read_sequence(connection: apsw.Connection) -> int:
    """Return how many changes there have been; raises CollectionDamaged as `read_state` does."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'sequence'").get
    if not isinstance(found, int):
        raise CollectionDamaged("The store does not say how many changes there were.")
    return found


def read_history(connection: apsw.Connection) -> dict[str, tuple[int, int]]:
    """Return each epoch's first sequence and the one that the next began at (or stands at)."""
    query = "SELECT sequence, epoch FROM epochs ORDER BY rowid"
    found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    ends = [*(first for first, _ in found[1:]), read_state(connection).sequence]
    return {epoch: (first, end) for (first, epoch), end in zip(found, ends, strict=False)}


def read_epoch(connection: apsw.Connection) -> str:
    """Return the name that the last process to write left, "" where none has written."""
    query = "SELECT epoch FROM epochs ORDER BY rowid DESC LIMIT 1"
    return str(connection.execute(query).get or "")


def write_state(connection: apsw.Connection, old: State, new: State) -> None:
    """Note the new state, where it differs."""
    pairs = [(key, getattr(new, key)) for key in State.__slots__]
    connection.executemany(
        "UPDATE meta SET value = ? WHERE key = ?",
        [(value, key) for key, value in pairs if value != getattr(old, key)],
    )


def _new_id(connection: apsw.Connection) -> str:
    """Return an id that begins with the mark of the file, so that file and log are tied."""
    mark = int(connection.execute("PRAGMA application_id").get)
    return f"{mark:08x}{uuid.uuid4().hex[_MARK:]}"


def _check_mark(collection: str, path: Path | None) -> None:
    """Raise CollectionDamaged where the id, which may stand in the log, is not of this file."""
    if path is not None and f"{mark_of(path):08x}" != collection[:_MARK]:
        raise CollectionDamaged(
            f"{path} and its log belong to two collections.",
            hint="Put its own files back, or restore a backup.",
        )


def peek(path: Path) -> Meta | None:
    """Return what the store at `path` says about itself, None where there is none."""
    if not path.is_file() or not path.stat().st_size:
        return None
    database = Database(path)
    try:
        with database.reading() as connection:
            return None if is_blank(connection) else read_meta(connection, path)
    finally:
        database.close()
