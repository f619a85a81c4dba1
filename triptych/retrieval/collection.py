"""A collection: a folder that remembers items and finds them again.

store.sqlite   the truth
index/         a saved index, a copy that is rebuilt where it is missing, old or damaged
lock           held by the one process that writes; the others search, and follow what it writes
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from triptych.encoders.base import EmbeddingModel
from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
)
from triptych.index.base import checked_vectors
from triptych.index.meta import Meta, peek
from triptych.index.records import Entry, FileState, KnownFile, Record
from triptych.index.store import Store
from triptych.retrieval.arguments import as_ids, cosine, one_limit, whole
from triptych.retrieval.live import LiveIndex
from triptych.retrieval.prepare import AnyItem, Prepared, batches, prepare
from triptych.retrieval.query import build_query, query_vector
from triptych.retrieval.snapshot import sync_folder
from triptych.types import Hit, ImageSource, Item, Matrix, Part, Query, Vector

STORE = "store.sqlite"
_BATCH_EMBEDDED = 64
_BATCH_VECTORS = 2048  # nothing to compute: the sync of each transaction is what costs


class Collection:
    """Items in, hits out. Threads may share it; one process at a time writes."""

    def __init__(
        self, store: Store, *, embedder: EmbeddingModel, kind: str, folder: Path | None
    ) -> None:
        self.folder = folder
        self.embedder = embedder
        self._store = store
        self._gate = threading.RLock()  # the index and the sequence that it shows, together
        self._check_model()
        self._index = LiveIndex(store, kind=kind, dim=embedder.dim, folder=folder)
        self._refresh()

    @classmethod
    def open(cls, path: str | Path, *, embedder: EmbeddingModel, index: str = "faiss") -> Self:
        """Return the collection in the folder `path`, created where there is none.

        ":memory:" lives until close. Raises ModelMismatch where the vectors are another model's,
        CollectionDamaged, NotAvailable for a newer format.
        """
        folder = None if str(path) == ":memory:" else Path(path)
        if folder is not None:
            _make_folder(folder)
            _check_not_gutted(folder)
        store = Store.open(
            folder / STORE if folder else None,
            model=embedder.name,
            fingerprint=embedder.fingerprint,
            dim=embedder.dim,
        )
        try:
            return cls(store, embedder=embedder, kind=index, folder=folder)
        except BaseException:
            store.close()
            raise

    @staticmethod
    def peek(path: str | Path) -> Meta | None:
        """Return format, model, fingerprint and dim of the collection in `path`, None if none."""
        return peek(Path(path) / STORE)

    def add(self, items: Iterable[AnyItem]) -> int:
        """Return how many were added; an iterator is taken in batches, each durable by itself.

        Raises InvalidInput naming the ids that exist; of the batch they came in nothing is added.
        """
        return self._write(items, replace=False)

    def upsert(self, items: Iterable[AnyItem]) -> int:
        """Return how many were written, replacing by id; batches as in `add`."""
        return self._write(items, replace=True)

    def put(self, batch: Sequence[Prepared], *, replace: bool = True) -> int:
        """Embed and store one prepared batch in one transaction; return how many items."""
        if replace:
            batch = list({one.item.id: one for one in batch}.values())
        vectors_NM = self._embed([one.item for one in batch])
        entries = [_entry(one, vector) for one, vector in zip(batch, vectors_NM, strict=True)]
        with self._writing():
            self._index.apply(self._store.write(entries, replace=replace), vectors_NM)
        return len(entries)

    def delete(self, ids: str | Iterable[str]) -> int:
        """Return how many of the ids were there and are gone."""
        names = as_ids(ids)
        with self._writing():
            change = self._store.delete(names)
            self._index.apply(change, np.empty((0, self.embedder.dim), dtype=np.float32))
        return len(change.removed_N)

    def get(self, ids: str | Iterable[str]) -> list[Record | None]:
        """Return what is stored under each id, None where there is nothing.

        Raises CollectionDamaged naming an item whose checksum is wrong.
        """
        names = as_ids(ids)
        found = self._store.records_of(names)
        return [found.get(name) for name in names]

    def vectors(self, ids: Sequence[str]) -> Matrix:
        """Return the stored unit rows of `ids`, in order; raises NotFound for an unknown id."""
        with self._store.reading():
            rows = self._store.rows_of(ids)
            for id in ids:
                if id not in rows:
                    raise NotFound(f"There is no item {id!r} in this collection.")
            loaded = self._store.load(np.array(list(rows.values()), dtype=np.int64))
        if loaded.damaged:
            raise CollectionDamaged(
                f"The item {next(iter(loaded.damaged.values()))!r} is damaged on disk.",
                hint="Delete it, or add it again.",
            )
        at = np.searchsorted(loaded.rows_N, [rows[id] for id in ids])
        return loaded.vectors_NM[at]

    def count(self) -> int:
        """Return how many items there are."""
        return len(self._store)

    __len__ = count

    def search(
        self,
        query: str | Query | Part | Sequence[Part] | None = None,
        *,
        image: ImageSource | Sequence[ImageSource] | None = None,
        minus: Any = (),
        like: str | Sequence[str] | None = None,
        vector: Any | None = None,
        limit: int = 10,
        top_k: int | None = None,
        k: int | None = None,
        offset: int = 0,
        filter: Any | None = None,
        threshold: float | None = None,
    ) -> list[Hit]:
        """Return the nearest items, best first, equal scores by id.

        `like` are stored ids, which are not found themselves. Raises InvalidInput, NotFound for an
        unknown id, PictureError.
        """
        if filter is not None:
            raise NotAvailable("Filters come with a later version.")
        limit = one_limit(limit, top_k, k)
        offset = whole("offset", offset, least=0)
        threshold = cosine(threshold)
        asked = build_query(query, image=image, minus=minus, like=like or (), vector=vector)
        if self.count() == 0:
            return []
        vector_M = query_vector(asked, embed=self._embed_query, stored=self.vectors)
        if len(vector_M) != self.embedder.dim:
            raise InvalidInput(
                f"The query's vector has {len(vector_M)} numbers, expected {self.embedder.dim}."
            )
        named = {part.id for part in asked.parts if part.id is not None}
        with self._gate, self._store.reading():
            self._refresh()
            found = self._index.nearest(vector_M, limit + offset + len(named))
        best = [_hit(record, score, self._index.kind) for record, score in found]
        best = [hit for hit in best if hit.id not in named][offset : offset + limit]
        return [hit for hit in best if threshold is None or hit.score >= threshold]

    def thumbnail(self, id: str) -> bytes | None:
        """Return a small JPEG of the item's picture, None where it has none."""
        return self._store.thumbnail(id)

    def info(self) -> dict[str, Any]:
        """Return what the collection is: model, counts, index, damage."""
        meta = self._store.meta
        with self._gate, self._store.reading():
            self._refresh()
            return {
                "path": str(self.folder or ":memory:"),
                "count": len(self._store),
                "model": meta.model,
                "fingerprint": meta.fingerprint,
                "dim": meta.dim,
                "index": self._index.kind,
                "sequence": self._index.sequence,
                "format": meta.format,
                "created": meta.created,
                "damaged": sorted(self._index.damaged.values()),
            }

    def claim(self) -> None:
        """Become the writer now instead of at the first write; raises CollectionBusy."""
        with self._writing():
            pass

    def files(self) -> dict[str, KnownFile]:
        """Return what is remembered of each file of an indexed folder, by id."""
        return self._store.files()

    def touch(self, states: Mapping[int, FileState]) -> None:
        """Note that these files look different while their content is the same."""
        with self._writing():
            self._store.touch(dict(states))

    def compact(self) -> None:
        """Give space back, and save the index."""
        with self._writing():
            self._store.compact()
            self._index.save()

    def migrate(self, *_: Any, **__: Any) -> NoReturn:
        """Raise NotAvailable: changing the model of stored items is yet to come."""
        raise NotAvailable(
            "A collection cannot change its model yet.", hint="Run: triptych index --rebuild"
        )

    def close(self) -> None:
        """Save the index if nobody else is writing, and let go of the files. Twice is harmless."""
        with self._gate:
            try:
                # a copy that could not be saved costs time at the next opening, nothing else
                with suppress(CollectionBusy, NotAvailable, OSError):
                    if self._index.worth_saving:
                        with self._writing():
                            self._index.save()
            finally:
                self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, items: Iterable[AnyItem], *, replace: bool) -> int:
        if isinstance(items, Item | Mapping):
            items = [items]
        size = _BATCH_VECTORS if self._holds_own_vectors else _BATCH_EMBEDDED
        # as the model itself would decode it: a picture and its query then give one vector
        hint = getattr(self.embedder, "picture_size", None)
        written = 0
        for batch in batches(items, size):
            written += self.put([prepare(one, size_hint=hint) for one in batch], replace=replace)
        return written

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._gate:
            if not self._store.writing:
                self._store.lock()
                # until now another process may have written, or given the collection a model
                self._store.refreshed_meta()
                self._check_model()
            self._refresh()
            yield

    def _refresh(self) -> None:
        with self._gate, self._store.reading():
            if self._store.sequence != self._index.sequence:
                if self._store.refreshed_meta().fingerprint != self.embedder.fingerprint:
                    raise self._mismatch()
                self._index.refresh()

    def _embed(self, items: Sequence[Item]) -> Matrix:
        for item in items:
            self._check_origin(item)
        return checked_vectors(self.embedder.embed(items), self.embedder.dim)

    def _embed_query(self, items: Sequence[Item]) -> Matrix:
        if self._holds_own_vectors:
            raise NotAvailable(
                f"This collection holds vectors of the caller's own ({self.embedder.name}).",
                hint="Search it with vector=... or like=...",
            )
        return self._embed(items)

    @property
    def _holds_own_vectors(self) -> bool:
        return self.embedder.fingerprint.startswith("vectors:")

    def _check_origin(self, item: Item) -> None:
        if (item.vector is not None) != self._holds_own_vectors:
            got = "brings no vector" if item.vector is None else "brings a vector of its own"
            raise ModelMismatch(
                f"{item.id!r} {got}, expected vectors of {self.embedder.name} only.",
                hint="Use another collection, or index this one anew: triptych index --rebuild",
            )

    def _check_model(self) -> None:
        meta, ours = self._store.meta, self.embedder
        if (meta.fingerprint, meta.dim) == (ours.fingerprint, ours.dim):
            return
        if len(self._store):
            raise self._mismatch()
        self._store.adopt(model=ours.name, fingerprint=ours.fingerprint, dim=ours.dim)

    def _mismatch(self) -> ModelMismatch:
        meta, ours = self._store.meta, self.embedder
        return ModelMismatch(
            f"{self.folder or 'The collection'} holds vectors of the model {meta.model} "
            f"({meta.fingerprint[:12]}, {meta.dim} numbers), got {ours.name} "
            f"({ours.fingerprint[:12]}, {ours.dim} numbers).",
            hint="Open it with its own model, or index it anew: triptych index --rebuild",
        )


def _entry(prepared: Prepared, vector: Vector) -> Entry:
    item = prepared.item
    return Entry(
        id=item.id,
        modality="vector" if item.vector is not None else item.modality,
        vector=vector,
        text=item.text,
        uri=item.uri,
        metadata=item.metadata,
        content=prepared.content,
        file=prepared.file,
        thumbnail=prepared.thumbnail,
    )


def _hit(record: Record, score: float, kind: str) -> Hit:
    return Hit(
        id=record.id,
        score=score,
        metadata=record.metadata,
        uri=record.uri,
        text=record.text,
        modality=record.modality,
        found=kind,
    )


def _make_folder(folder: Path) -> None:
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        # SQLite syncs its own folder, but not the name of that folder
        for path in new:
            sync_folder(path.parent)
    except FileExistsError:
        raise InvalidInput(f"{folder} is a file, expected a collection's folder.") from None
    except (OSError, ValueError) as error:
        raise NotAvailable(f"{folder} cannot be created: {error}.") from None


def _check_not_gutted(folder: Path) -> None:
    """Raise CollectionDamaged where items were indexed but the store is gone or empty."""
    store = folder / STORE
    if not (store.exists() and store.stat().st_size) and (folder / "index").is_dir():
        raise CollectionDamaged(
            f"{store} is missing or empty, but an index of its items is there.",
            hint="Restore it from a backup, or delete the folder and index again.",
        )
