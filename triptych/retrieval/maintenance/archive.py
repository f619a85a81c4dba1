"""A collection in one file: a tar of Parquet parts, and a manifest with the hash of each.

The manifest comes last: without its end a file is no archive. The parts can be read with any
Parquet reader; the fields below say what is in them.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from triptych.errors import CollectionDamaged, InvalidInput, NotAvailable, TriptychError
from triptych.index.base import halved, widened
from triptych.index.sqlite.meta import PRECISIONS
from triptych.index.sqlite.records import Entry, FileState, Picture, Tokens, metadata_json
from triptych.types import Precision

FORMAT = 3  # of one with token states; without, and without pictures, as before there were: 2, 1
MANIFEST = "manifest.json"

PICTURES = "pictures/"
"""Members of that folder are pictures as they were sent, each named by its SHA-256."""

_PICTURE = re.compile(rf"{PICTURES}[0-9a-f]{{64}}")
_PART = re.compile(r"items-[0-9]{5}\.parquet")
_LARGEST_MANIFEST = 64 << 20
_MOST_MEMBERS = 10_000_000
_BATCH = 256
_WRONG = (ValueError, TypeError, KeyError, AttributeError)
_LONGER = {4: 1e-5, 2: 1e-2}  # by the bytes of a number: what rounding does to a length of 1
_MODALITIES = ("text", "image", "both", "vector")
# those that may hold lone surrogates, which Parquet's text cannot: then `exact` has them as JSON,
# in pieces where two stand together, which JSON takes for one character
_TEXTS = ("id", "text", "uri", "root")
_APART = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Parquet file."""

    name: str
    items: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What an archive says of itself."""

    collection: str
    model: str
    fingerprint: str
    dim: int
    precision: Precision
    count: int
    created: float  # when the collection was made
    parts: tuple[Part, ...]
    pictures: int = 0  # as they were sent, equal ones once
    token_width: int = 0  # of the token states in it; 0: there are none


def schema(dim: int, precision: Precision, *, pictures: bool, token_width: int = 0) -> pa.Schema:
    """Return the columns of a part; `size` and `mtime_ns` are those of an indexed file.

    With `pictures` a column names those that items were sent with, with a `token_width` one holds
    their token states: rows of so many numbers of eight bits.
    """
    number = pa.float16() if precision == "fp16" else pa.float32()
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("modality", pa.string(), nullable=False),
            ("text", pa.string()),
            ("uri", pa.string()),
            pa.field("metadata", pa.string(), nullable=False),
            ("content", pa.string()),
            ("root", pa.string()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            pa.field("vector", pa.list_(number, dim), nullable=False),
            ("thumbnail", pa.binary()),
            ("exact", pa.string()),
            *([("picture", pa.string())] if pictures else []),
            *([("tokens", pa.binary())] if token_width else []),
        ]
    )


def as_table(entries: Sequence[Entry], columns: pa.Schema) -> pa.Table:
    """Return the entries as columns, their vectors as they are stored."""
    rows = [_fields(entry) for entry in entries]
    vectors = columns.field("vector").type
    vectors_NM = np.stack([entry.vector for entry in entries])
    numbers_NM = halved(vectors_NM) if vectors.value_type == pa.float16() else vectors_NM
    flat = pa.array(np.ascontiguousarray(numbers_NM).reshape(-1), vectors.value_type)
    arrays = [
        pa.FixedSizeListArray.from_arrays(flat, type=vectors)
        if field.name == "vector"
        else pa.array([row[field.name] for row in rows], field.type)
        for field in columns
    ]
    return pa.Table.from_arrays(arrays, schema=columns)


def manifest_bytes(archive: Archive) -> bytes:
    """Return the last member."""
    body = {"format": FORMAT, **asdict(archive)}
    if not archive.token_width:
        del body["token_width"]
        body["format"] = 2
        if not archive.pictures:
            del body["pictures"]
            body["format"] = 1
    return json.dumps(body | {"checksum": _checksum(body)}, indent=1).encode()


class ArchiveReader:
    """An archive that is open, its hashes checked by `verify`."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        """Read the list of members; raises InvalidInput for a file that is no archive."""
        self.path = path
        self._tar = tar
        self._members = self._listed()
        self.archive = self._manifest()

    def verify(self) -> None:
        """Hash every part; raises CollectionDamaged."""
        for part in self.archive.parts:
            with self._opened(part.name) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            if found != part.sha256:
                raise self._damaged(f"{part.name} is not as it was written")
        for name in self._members:
            if _PICTURE.fullmatch(name):
                self.picture(name.removeprefix(PICTURES))

    def picture(self, sha256: str) -> Picture:
        """Return a picture as it was sent; raises CollectionDamaged where it is not in there."""
        if f"{PICTURES}{sha256}" not in self._members:
            raise self._damaged(f"the picture {sha256[:12]} is missing")
        with self._opened(f"{PICTURES}{sha256}") as file:
            picture = Picture.of(file.read())
        if picture.sha256 != sha256:
            raise self._damaged(f"the picture {sha256[:12]} is not as it was written")
        return picture

    def entries(self) -> Iterator[list[Entry]]:
        """Yield the items, some hundreds at a time; raises CollectionDamaged."""
        archive = self.archive
        expected = schema(
            archive.dim,
            archive.precision,
            pictures=archive.pictures > 0,
            token_width=archive.token_width,
        )
        for part in self.archive.parts:
            try:
                with self._opened(part.name) as raw, pq.ParquetFile(raw) as file:
                    if not file.schema_arrow.equals(expected):
                        raise self._damaged(f"{part.name} has other columns than expected")
                    if file.metadata.num_rows != part.items:
                        raise self._damaged(f"{part.name} has another number of items")
                    for batch in file.iter_batches(batch_size=_BATCH):
                        # their pictures are named only, see `picture`
                        yield _entries(batch, archive.token_width)
            except TriptychError:
                raise
            except (*_WRONG, OSError, RecursionError, pa.ArrowException):
                raise self._damaged(f"{part.name} cannot be read") from None

    def _listed(self) -> dict[str, tarfile.TarInfo]:
        found: dict[str, tarfile.TarInfo] = {}
        try:
            for member in self._tar:
                plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                known = member.name == MANIFEST or _PART.fullmatch(member.name)
                known = known or _PICTURE.fullmatch(member.name)
                if not plain or member.issparse() or not known or member.name in found:
                    raise self._no_archive(f"it holds {member.name!r}")
                if len(found) > _MOST_MEMBERS:
                    raise self._no_archive("it holds too many files")
                found[member.name] = member
        except TriptychError:
            raise
        except (tarfile.TarError, EOFError, ValueError):
            raise self._no_archive("it is no tar, or a damaged one") from None
        return found

    def _manifest(self) -> Archive:
        member = self._members.get(MANIFEST)
        if member is None:
            raise self._no_archive("it is incomplete: its end is missing")
        if member.size > _LARGEST_MANIFEST:
            raise self._no_archive("its manifest is too large")
        with self._opened(MANIFEST) as file:
            archive = self._parsed(file.read())
        sizes = {name: one.size for name, one in self._members.items() if _PART.fullmatch(name)}
        if sizes != {part.name: part.bytes for part in archive.parts}:
            raise self._damaged("its parts are not those that the manifest names")
        if len(self._members) != 1 + len(sizes) + archive.pictures:
            raise self._damaged("it has another number of pictures than the manifest says")
        if sum(part.items for part in archive.parts) != archive.count:
            raise self._damaged("its parts do not have as many items as the manifest says")
        return archive

    def _parsed(self, raw: bytes) -> Archive:
        try:
            body: dict[str, Any] = json.loads(raw)
            if body["format"] not in (1, 2, FORMAT):
                raise NotAvailable(
                    f"{self.path} has format {body['format']!r}, this Triptych reads {FORMAT}.",
                    hint="Run: pip install --upgrade triptych",
                )
            if body.pop("checksum") != _checksum(body):
                raise self._damaged("the manifest is not as it was written")
            del body["format"]
            parts = tuple(Part(**part) for part in body.pop("parts"))
            return _typed(Archive(**body, parts=parts))
        except (*_WRONG, RecursionError):
            raise self._damaged("the manifest cannot be read") from None

    def _opened(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[name])
        assert file is not None, "only regular files are listed"
        return file

    def _no_archive(self, reason: str) -> InvalidInput:
        return InvalidInput(f"{self.path} is not an archive of a collection: {reason}.")

    def _damaged(self, reason: str) -> CollectionDamaged:
        return CollectionDamaged(
            f"{self.path} is damaged: {reason}.", hint="Get another copy, or export it again."
        )


def _fields(entry: Entry) -> dict[str, Any]:
    file = entry.file
    texts = (entry.id, entry.text, entry.uri, file.root if file else None)
    given = dict(zip(_TEXTS, texts, strict=True))
    shown = {name: None if text is None else _valid(text) for name, text in given.items()}
    exact = {
        name: _APART.split(text)
        for name, text in given.items()
        if text is not None and text != shown[name]
    }
    return {
        **shown,
        "modality": entry.modality,
        "metadata": metadata_json(entry.id, entry.metadata),
        "content": entry.content,
        "size": file.size if file else None,
        "mtime_ns": file.mtime_ns if file else None,
        "thumbnail": entry.thumbnail,
        "exact": json.dumps(exact) if exact else None,
        "picture": entry.picture.sha256 if entry.picture else None,
        "tokens": None if entry.tokens is None else entry.tokens.tobytes(),
    }


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _entries(batch: pa.RecordBatch, token_width: int) -> list[Entry]:
    vectors = batch.column("vector")
    if vectors.null_count or vectors.values.null_count:
        raise ValueError("a vector is missing")
    numbers_NM = vectors.flatten().to_numpy(zero_copy_only=False)
    numbers_NM = numbers_NM.reshape(len(batch), vectors.type.list_size)
    lengths_N = np.linalg.norm(numbers_NM.astype(np.float64), axis=1)
    if not (np.abs(lengths_N - 1) <= _LONGER[numbers_NM.dtype.itemsize]).all():  # nor NaN
        raise ValueError("a vector has not the length 1")
    vectors_NM = widened(numbers_NM) if numbers_NM.dtype == np.float16 else numbers_NM
    rows = batch.drop_columns(["vector"]).to_pylist()
    pairs = zip(rows, vectors_NM, strict=True)
    return [_entry(row, vector_M, token_width) for row, vector_M in pairs]


def _entry(row: Mapping[str, Any], vector_M: Any, token_width: int) -> Entry:
    exact = json.loads(row["exact"]) if row["exact"] is not None else {}
    whole = {name: "".join(parts) for name, parts in exact.items()}
    id, text, uri, root = (whole.get(name, row[name]) for name in _TEXTS)
    if not isinstance(id, str) or not all(isinstance(one, str | None) for one in (text, uri, root)):
        raise ValueError("a text is none")
    metadata = json.loads(row["metadata"])
    modality = row["modality"]
    if modality not in _MODALITIES or not isinstance(metadata, dict):
        raise ValueError("a field has a value that it cannot have")
    file = None
    if root is not None:
        file = FileState(root=root, size=int(row["size"]), mtime_ns=int(row["mtime_ns"]))
    return Entry(
        id=id,
        modality=modality,
        vector=vector_M,
        text=text,
        uri=uri,
        metadata=metadata,
        content=row["content"],
        file=file,
        thumbnail=row["thumbnail"],
        picture=None if row.get("picture") is None else Picture(row["picture"], 0),
        tokens=_tokens(row.get("tokens"), token_width),
    )


def _tokens(raw: bytes | None, width: int) -> Tokens | None:
    if raw is None:
        return None
    tokens_TW = np.frombuffer(raw, dtype=np.int8).reshape(-1, width)
    if not len(tokens_TW) or not tokens_TW.any(axis=1).all():
        raise ValueError("a token state points nowhere")
    return tokens_TW


def _typed(archive: Archive) -> Archive:
    """Return it; raises TypeError where a field has a wrong type or a value out of range."""
    texts = [archive.collection, archive.model, archive.fingerprint]
    numbers = [archive.dim, archive.count, archive.pictures, archive.token_width]
    for part in archive.parts:
        texts += [part.name, part.sha256]
        numbers += [part.items, part.bytes]
    if not all(type(text) is str for text in texts):
        raise TypeError("a text is none")
    if not all(type(number) is int and number >= 0 for number in numbers) or not archive.dim:
        raise TypeError("a number is none")
    if archive.precision not in PRECISIONS or archive.dim > 65_536:
        raise TypeError("the vectors cannot be")
    return archive


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
