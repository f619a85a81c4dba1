"""Items made ready to embed: checked, their pictures decoded once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from triptych.encoders.pictures.picture import load_picture, picture_bytes, thumbnail
from triptych.errors import InvalidInput, PictureError
from triptych.index.sqlite.records import Entry, FileState, Picture, Tokens, metadata_json
from triptych.types import ImageSource, Item, Vector

FIRST = 8
"""Items stored in the first go."""

_GO = 2.0  # seconds
AnyItem: TypeAlias = Item | Mapping[str, Any]
AnyItems: TypeAlias = AnyItem | Iterable[AnyItem]
T = TypeVar("T")

_FIELDS = tuple(field.name for field in fields(Item))
_SHA256 = 64  # hex digits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An item whose picture is decoded, and what is kept beside its vector."""

    item: Item
    thumbnail: bytes | None = None
    content: str | None = None
    file: FileState | None = None
    picture: Picture | None = None  # as it was sent

    def entry(self, vector: Vector, tokens: Tokens | None = None) -> Entry:
        """Return what is stored of it, with its unit vector and its token states in eight bits."""
        item = self.item
        return Entry(
            id=item.id,
            modality="vector" if item.vector is not None else item.modality,
            vector=vector,
            text=item.text,
            uri=item.uri,
            metadata=item.metadata,
            content=self.content,
            file=self.file,
            thumbnail=self.thumbnail,
            tokens=tokens,
            picture=self.picture,
        )


def as_item(given: AnyItem) -> Item:
    """Return an Item; raises InvalidInput for anything but an Item or a mapping of its fields."""
    if isinstance(given, Item):
        return given
    if not isinstance(given, Mapping):
        raise InvalidInput(f"Got a {type(given).__name__}, expected an Item or a dict.")
    unknown = [name for name in given if name not in _FIELDS]
    if unknown or "id" not in given:
        raise InvalidInput(
            f"An item has the keys {', '.join(_FIELDS)}, got {', '.join(map(repr, given))}.",
            hint="Give at least an id; put fields of your own into metadata.",
        )
    return Item(**{"metadata": {}, **given})


def check_item(item: Item) -> None:
    """Raise InvalidInput for a text, uri or metadata that cannot be stored."""
    _check_words(item)
    metadata_json(item.id, item.metadata)


def content_of(item: Item, picture: bytes | None) -> str:
    """Return the hash of all that the item says: of a bare picture, of its bytes alone.

    With words, metadata or an address of its own it is `<hash of the picture>-<hash of those>`.
    """
    parts = [] if picture is None else [_hash(picture)]
    if item.text is not None or item.metadata or item.uri not in (None, item.image):
        parts.append(_words_hash(item))
    return "-".join(parts)


def is_of(content: str, picture: bytes) -> bool:
    """Whether a hash of `content_of` is that of a picture of these bytes."""
    return content[:_SHA256] == _hash(picture)


def prepare(given: AnyItem, *, size_hint: int | None = None, keep: bool = True) -> Prepared:
    """Return the item with its picture decoded, near the size that the model wants.

    With `keep` a picture that came as bytes or a data URI is kept as it is: there is no file that
    it could be read from again. Of a file the hash is kept, so that it is known again, and the
    hash of the words even where there are none: a folder that is indexed later finds its own
    picture different, and takes it in with its file. Raises InvalidInput or PictureError, naming
    the item.
    """
    item = as_item(given)
    if item.vector is not None and item.image is None:
        _check_words(item)  # the store checks the metadata: here nothing is computed in between
        return Prepared(item=item)
    check_item(item)
    if item.image is None:
        return Prepared(item=item)
    try:
        data = picture_bytes(item.image)
        picture = load_picture(item.image if data is None else data, size_hint=size_hint)
    except PictureError as error:
        raise PictureError(error.code, f"{item.id!r}: {error.message}", hint=error.hint) from None
    file = _file(item.image)
    item = replace(item, image=picture, uri=file if item.uri is None else item.uri)
    is_sent = data is not None and file is None
    return Prepared(
        item=item,
        thumbnail=thumbnail(picture),
        content=None if data is None or is_sent else f"{_hash(data)}-{_words_hash(item)}",
        picture=Picture.of(data) if keep and data is not None and is_sent else None,
    )


def as_read(item: Item) -> Item:
    """Return the item as its model reads it: where `headed` says so, `heading` comes first.

    Both are metadata that documents are cut with. The text is stored, shown and cited alone.
    """
    metadata, text = item.metadata, item.text
    heading = metadata.get("heading")
    if text is None or not isinstance(heading, str) or metadata.get("headed") is not True:
        return item
    return replace(item, text=with_headings(heading, text))


def with_headings(heading: str, text: str) -> str:
    """Return the text with a line for each heading above it that it does not say itself."""
    above = [words for words in heading.split(" > ") if words and words not in text]
    return "\n".join([*above, text])


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size`, taking no more from `items` than each needs."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def next_size(size: int, done: int, seconds: float, *, most: int) -> int:
    """Return how much to store in the next go, after `done` of at most `size` took so long.

    As much as takes two seconds, and at most twice as much as before: deadlines, who stops and who
    waits for his turn count on short goes, and long texts take a hundred times as long as a word.
    """
    pace = _GO / max(seconds, 1e-3)
    return min(round(size * min(pace, 2.0)) if pace > 1 else max(round(done * pace), 1), most)


def prepared(
    items: AnyItems, size: int, *, size_hint: int | None, keep: bool
) -> Iterator[list[Prepared]]:
    """Yield lists of at most `size` items, or fewer with large pictures to keep; see `prepare`."""
    some = [items] if isinstance(items, Item | Mapping) else items
    for batch in batches(some, size):
        ready = [prepare(one, size_hint=size_hint, keep=keep) for one in batch]
        yield from weighed(ready, sent_bytes)


def weighed(
    items: Iterable[T], num_bytes: Callable[[T], int], *, most: int = 64 * 2**20
) -> Iterator[list[T]]:
    """Yield lists of as many as have `most` bytes together, or one that has more."""
    batch: list[T] = []
    held = 0
    for item in items:
        size = num_bytes(item)
        if batch and held + size > most:
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += size
    if batch:
        yield batch


def sent_bytes(one: Prepared | Entry) -> int:
    """Return how many bytes of a picture that is kept as it was sent travel with an item."""
    return 0 if one.picture is None else len(one.picture.data or b"")


def _check_words(item: Item) -> None:
    for name, value in (("text", item.text), ("uri", item.uri)):
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"The {name} of {item.id!r} is not a string: {value!r}.")
    if item.text is not None and not item.text.strip():
        raise InvalidInput(f"The text of {item.id!r} is empty.", hint="Leave it out.")


def _file(image: ImageSource) -> str | None:
    """Return the absolute path of a picture that is a file: whoever asks later stands elsewhere."""
    if isinstance(image, str) and image[:5].lower() == "data:":
        return None
    return os.path.abspath(image) if isinstance(image, str | Path) else None


def _words_hash(item: Item) -> str:
    return _hash(json.dumps([item.text, dict(item.metadata), item.uri], sort_keys=True).encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
