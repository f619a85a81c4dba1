"""A WebDataset tar: members with one name and different endings make one item.

Nothing is unpacked: members are read in memory, one item at a time, and what is not a regular
file of modest size with an ordinary name is left out and named.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any

from triptych.encoders.pictures.picture import DEFAULT
from triptych.errors import InvalidInput
from triptych.retrieval.ingest.manifest import Places
from triptych.retrieval.ingest.offers import BadRow, Failure, Offer
from triptych.retrieval.ingest.rows import file_size, opened
from triptych.retrieval.ingest.rows_csv import plain
from triptych.retrieval.ingest.rows_jsonl import parse_object
from triptych.types import Item

MAX_MEMBERS = 1_000_000
MAX_TEXT = 2**20
"""Bytes of a .txt, .json or .cls, and of a header of the archive itself."""

_PICTURES = ("jpg", "jpeg", "png", "webp")
_TEXTS = ("txt", "json", "cls")
_NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<ending>[^/]+)", re.DOTALL)


@dataclass(slots=True)
class _Group:
    """The members of one item so far."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


class Shard:
    """The items of one tar as offers; an id is the tar's name and the item's key.

    Raises NotFound, or InvalidInput where the file is no plain tar.
    """

    def __init__(self, path: str, *, max_bytes: int = DEFAULT.max_bytes) -> None:
        self.path = path
        self.note = "id from the tar's name and the members' key"
        self._max_bytes = max_bytes
        self._size = file_size(path)
        self._read = 0
        with opened(path) as file:
            head = file.read(2)
            file.seek(0)
            try:
                _archive(file, max_bytes).close()
            # an archive that is fed garbage raises anything
            except Exception:
                packed = head in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")
                raise InvalidInput(
                    f"{path} is {'a compressed' if packed else 'no'} tar, expected a plain one.",
                    hint="Unpack it first: pictures hardly get smaller in it." if packed else None,
                ) from None

    def offers(self) -> Iterator[Offer | Failure]:
        """Yield the items, in order; what a damaged archive holds behind the damage is lost."""
        group: _Group | None = None
        places = Places()
        for found in self._members():
            if isinstance(found, Failure):
                yield found
                if found.code == "tar_damaged":
                    return  # the item that was being read may lack a part
                continue
            key, ending, data = found
            if group is not None and group.key != key:
                yield self._finished(group, places)
                group = None
            group = group or _Group(key)
            if ending not in (*_PICTURES, *_TEXTS):
                group.others.append(ending)
            elif ending in group.parts:
                yield self._failure(f"{key}.{ending}", "tar_duplicate", "The name comes twice.")
            else:
                group.parts[ending] = data
        if group is not None:
            yield self._finished(group, places)

    def total(self, num_read: int) -> int | None:
        """Estimate the number of items by the bytes that were read so far."""
        return round(num_read * self._size / self._read) if self._read else None

    def _members(self) -> Iterator[tuple[str, str, bytes] | Failure]:
        """Yield key, ending and bytes of each member, empty where the ending is not known."""
        with opened(self.path) as file, closing(_archive(file, self._max_bytes)) as archive:
            for number in range(MAX_MEMBERS + 1):
                before = archive.offset
                try:
                    member = archive.next()
                    if member is None:
                        _check_end(file, archive.offset)
                        return
                    if number == MAX_MEMBERS:
                        break
                    # a size below zero would lead back, and round for ever
                    if archive.offset <= before and number:
                        raise tarfile.ReadError
                    found = self._member(archive, member)
                # an archive that is fed garbage raises anything
                except Exception:
                    reason = "The archive is damaged or cut here; what follows cannot be read."
                    yield self._failure(f"byte {before:,}", "tar_damaged", reason)
                    return
                if found is not None:
                    yield found
                archive.members.clear()  # else it remembers a million of them
                self._read = archive.offset
        reason = f"It holds more than {MAX_MEMBERS:,} members; what follows is left out."
        yield self._failure("the end", "tar_too_many", reason)

    def _member(
        self, archive: Any, member: tarfile.TarInfo
    ) -> tuple[str, str, bytes] | Failure | None:
        name = member.name.removeprefix("./")
        if member.isdir() or os.path.basename(name).startswith("."):
            return None
        refused = _refused(member, name)
        match = _NAME.fullmatch(name)
        if refused is None and match is None:
            refused = (
                "tar_name",
                "Its name has no ending, expected key.jpg, key.txt or alike.",
            )
        if refused is not None or match is None:
            code, reason = refused or ("", "")
            return self._failure(name, code, reason)
        ending = match["ending"].lower()
        limit = self._max_bytes if ending in _PICTURES else MAX_TEXT
        if ending not in (*_PICTURES, *_TEXTS):
            return match["key"], ending, b""
        if member.size > limit:
            reason = f"It has {member.size:,} bytes, expected at most {limit:,}."
            return self._failure(name, "tar_too_large", reason)
        data: bytes = archive.extractfile(member).read()
        if len(data) < member.size:
            raise tarfile.ReadError("cut short")
        return match["key"], ending, data

    def _finished(self, group: _Group, places: Places) -> Offer | Failure:
        id = f"{os.path.basename(self.path)}/{group.key}"
        try:
            item = _item(id, group)
            places.take(id, group.key)
        except InvalidInput as error:
            return self._failure(group.key, error.code, error.message, id=id)
        return Offer(place=group.key, item=item)

    def _failure(self, place: str, code: str, reason: str, *, id: str | None = None) -> Failure:
        return Failure(source=self.path, place=place, id=id, code=code, reason=reason)


def _archive(file: BufferedReader, max_bytes: int) -> Any:
    """Return a TarFile, whose `offset` and `members` are not declared for the type checker."""
    capped: Any = _Capped(file, max_bytes + 1)
    return tarfile.open(fileobj=capped, mode="r:", errors="surrogateescape")


class _Capped:
    """A file that refuses to read more at once than a member may have."""

    def __init__(self, file: BufferedReader, limit: int) -> None:
        self._file, self._limit = file, limit
        self.name = file.name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._limit:
            raise tarfile.ReadError("a header announces too much")
        return self._file.read(size)


def _check_end(file: BufferedReader, offset: int) -> None:
    """Raise ReadError unless the archive ends with its mark: a damaged header looks like an end."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end of the archive")


def _refused(member: tarfile.TarInfo, name: str) -> tuple[str, str] | None:
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        return "tar_name", "Its name leads out of the archive."
    if member.islnk() or member.issym():
        return "tar_link", "Links are not followed."
    if not member.isreg() or member.issparse():
        return "tar_not_file", "It is no regular file."
    return None


def _item(id: str, group: _Group) -> Item:
    pictures = [ending for ending in group.parts if ending in _PICTURES]
    if len(pictures) > 1:
        raise BadRow("tar_pictures", f"It has {len(pictures)} pictures, expected one.")
    metadata: dict[str, Any] = {}
    if "json" in group.parts:
        metadata = parse_object(_decoded(group, "json"))
    if "cls" in group.parts:
        metadata["class"] = plain(_decoded(group, "cls").strip())
    text = _decoded(group, "txt").strip() if "txt" in group.parts else ""
    if not pictures and not text:
        seen = ", ".join(sorted({*group.parts, *group.others})) or "nothing that could be read"
        raise BadRow("tar_empty", f"It has neither a picture nor a .txt, it has: {seen}.")
    image = group.parts[pictures[0]] if pictures else None
    return Item(id=id, image=image, text=text or None, metadata=metadata)


def _decoded(group: _Group, ending: str) -> str:
    try:
        return group.parts[ending].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRow("tar_encoding", f"Its .{ending} is not UTF-8.") from None
