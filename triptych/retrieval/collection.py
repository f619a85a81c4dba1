"""A collection: a folder that remembers items and finds them again.

store.sqlite   the truth, with pictures/ beside it for those that came as bytes
index/         a saved index, a copy that is rebuilt where it is missing, old or damaged
lock           held by the one process that writes; others search, and hand it theirs at writer.sock
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np

from triptych.encoders.base import EmbeddingModel
from triptych.errors import CollectionBusy, ModelMismatch, NotAvailable, NotFound, TriptychError
from triptych.filters import Filter, parse_filter
from triptych.index import checked_kind
from triptych.index.plan import Budget
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite.meta import Meta, peek
from triptych.index.sqlite.records import FileState, KnownFile, Record
from triptych.index.sqlite.store import Store
from triptych.retrieval import late
from triptych.retrieval.arguments import as_ids, cosine, one_limit, share, wanted_ids, whole
from triptych.retrieval.builder import Builder
from triptych.retrieval.display.explain import explained
from triptych.retrieval.folder import STORE, check_folder, make_folder
from triptych.retrieval.live import LiveIndex
from triptych.retrieval.maintenance.copying import Copying
from triptych.retrieval.maintenance.originals import fill_the_rest
from triptych.retrieval.maintenance.spaces import Spaces
from triptych.retrieval.models import Models, embed_asked, embed_items, holds_own_vectors
from triptych.retrieval.pipeline import Pipeline, Request
from triptych.retrieval.prepare import AnyItems, Prepared, as_read, prepared
from triptych.retrieval.query import Term, build_query, query_words
from triptych.retrieval.writer import Writer
from triptych.types import Hit, ImageSource, Matrix, Part, Precision, Query

AnyFilter: TypeAlias = Filter | Mapping[str, Any] | str
Look: TypeAlias = Callable[[Query, Request], list[Hit]]

_AT_ONCE = max(2, os.cpu_count() or 1)  # searches: any more only get into each other's way
_BATCH_EMBEDDED = 64
_BATCH_VECTORS = 2048  # nothing to compute: the sync of each transaction is what costs


class Collection:
    """Items in, hits out. Threads may share it; one process writes, for the others too."""

    remember: Callable[[Query, Request, Look], list[Hit]] | None = None  # see AnswerCache.attach
    keep_pictures = True  # byte for byte, where they come as bytes

    def __init__(
        self,
        store: Store,
        *,
        embedder: EmbeddingModel,
        folder: Path | None,
        kind: str = "auto",
        budget: Budget | None = None,
        model_of: Callable[[Meta], EmbeddingModel] | None = None,
        threads: int = 1,
    ) -> None:
        self.folder = folder
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._store = store
        self._models = Models(embedder, folder=folder, opener=model_of)
        self._models.check(store)
        self._adopt(embedder)
        snapshots = Snapshots(folder / "index") if folder else None
        self._live = LiveIndex(store, snapshots=snapshots, before_turn=self._models.of)
        mutex = threading.RLock()  # held by whoever writes
        self._builder = Builder(
            store, self._live, snapshots, mutex,
            kind=kind, budget=budget or Budget(), threads=threads,
        )  # fmt: skip
        self._writer = Writer(
            store, self._live, self._builder, mutex, folder=folder,
            check=lambda: self._adopt(self.embedder),
            finish=partial(fill_the_rest, store, self._models),
        )  # fmt: skip
        self.spaces = Spaces(store, self._models, self._writer)
        self.copying = Copying(store, self._writer)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        embedder: EmbeddingModel,
        index: str = "auto",
        budget: Budget | None = None,
        precision: Precision = "fp32",
        tokens: bool = False,
        model_of: Callable[[Meta], EmbeddingModel] | None = None,
        threads: int = 1,
    ) -> Self:
        """Return the collection in the folder `path`, created where there is none.

        ":memory:" lives until close. `index` insists on a kind, `budget` chooses one; `precision`
        (fp32 or fp16) and `tokens` (whether token states are kept, for `rerank`) are a new
        collection's; `model_of` opens another model where a migration has changed it. Raises
        ModelMismatch where the vectors are another model's, CollectionDamaged, NotAvailable for a
        newer format or a model without token states, InvalidInput as `check_folder` does.
        """
        kind = checked_kind(index)
        folder = None if str(path) == ":memory:" else Path(path).absolute()  # chdir may follow
        if folder is not None:
            make_folder(folder)
            check_folder(folder)
        store = Store.open(
            folder / STORE if folder else None,
            model=embedder.name,
            fingerprint=embedder.fingerprint,
            dim=embedder.dim,
            precision=precision,
            token_width=late.token_width(embedder) if tokens else 0,
        )
        try:
            return cls(
                store, embedder=embedder, folder=folder, kind=kind, budget=budget,
                model_of=model_of, threads=threads,
            )  # fmt: skip
        except BaseException:
            store.close()
            raise

    @property
    def embedder(self) -> EmbeddingModel:
        """The model whose vectors are searched."""
        return self._models.of(self._live.meta)

    @property
    def generation(self) -> str:
        """A name for the state that is searched: another one after each write of any process."""
        return self._store.generation

    @staticmethod
    def peek(path: str | Path) -> Meta | None:
        """Return format, model, fingerprint and dim of the collection in `path`, None if none."""
        return peek(Path(path) / STORE)

    def add(self, items: AnyItems) -> int:
        """Return how many items, or dicts of their fields, were added, in durable batches.

        Raises InvalidInput naming the ids that exist; of the batch they came in nothing is added.
        """
        return self._write(items, replace=False)

    def upsert(self, items: AnyItems) -> int:
        """Return how many were written, replacing by id; batches as in `add`."""
        return self._write(items, replace=True)

    def put(self, batch: Sequence[Prepared], *, replace: bool = True) -> int:
        """Embed and store one prepared batch in one transaction; return how many items."""
        if replace:
            batch = list({one.item.id: one for one in batch}.values())
        while True:
            meta = self._live.meta
            model = self._models.of(meta)
            items = [as_read(one.item) for one in batch]
            vectors_NM = embed_items(model, items)
            tokens = late.stored_tokens(model, items, meta.token_width)
            entries = [one.entry(*its) for one, *its in zip(batch, vectors_NM, tokens, strict=True)]
            try:
                return self._writer.write(entries, replace=replace, fingerprint=model.fingerprint)
            except ModelMismatch:
                self._live.refresh()
                if meta == self._live.meta:
                    raise

    def delete(self, ids: str | Iterable[str]) -> int:
        """Return how many of the ids were there and are gone."""
        return self._writer.delete(as_ids(ids))

    def get(self, ids: str | Iterable[str]) -> list[Record | None]:
        """Return what is stored under each id, None where there is nothing.

        Raises CollectionDamaged naming an item whose checksum is wrong.
        """
        found = self._store.records_of(names := as_ids(ids))
        return [found.get(name) for name in names]

    def vectors(self, ids: Sequence[str]) -> Matrix:
        """Return the stored unit rows of `ids`, in order; raises NotFound for an unknown id."""
        names = as_ids(ids)
        while True:
            with self._store.reading():
                self._live.refresh()
                rows = self._store.rows_of(names)
                for name in names:
                    if name not in rows:
                        raise NotFound(f"There is no item {name!r} in this collection.")
                wanted_N = np.array([rows[name] for name in names], dtype=np.int64)
                try:
                    return self._live.vectors(wanted_N)
                except NotFound:  # overtaken by a writer, or damaged
                    if self._live.sequence == self._store.sequence:
                        raise

    def count(self, filter: AnyFilter | None = None) -> int:
        """Return how many items there are, or how many of them match."""
        wanted = parse_filter(filter)
        return len(self._store if wanted is None else self._store.where(wanted))

    __len__ = count

    def facets(
        self, fields: str | Sequence[str], *, filter: AnyFilter | None = None, limit: int = 20
    ) -> dict[str, list[tuple[Any, int]]]:
        """Return the `limit` most frequent values of each metadata field, with their counts."""
        names = [fields] if isinstance(fields, str) else list(fields)
        return self._store.facets(names, parse_filter(filter), limit=whole("limit", limit, least=1))

    def search(
        self,
        query: str | Query | Part | Sequence[Part] | None = None,
        *,
        image: ImageSource | Sequence[ImageSource] | None = None,
        minus: Term | Sequence[Term] = (),
        like: str | Sequence[str] | None = None,
        vector: Any | None = None,
        limit: int = 10,
        top_k: int | None = None,
        k: int | None = None,
        offset: int = 0,
        filter: AnyFilter | None = None,
        threshold: float | None = None,
        hybrid: bool | float = False,
        rerank: int = 0,
        diversity: float = 0.0,
        group_by: str | None = None,
        group_size: int = 1,
        explain: bool | Iterable[str] = False,
    ) -> list[Hit]:
        """Return the nearest items, best first, equal scores by id.

        Strings in `query` and `minus` are words; `like` are ids, not found themselves. `filter` is
        JSON or a string, see triptych.filters. No score is below `threshold`. `hybrid` fuses the
        order with that of BM25 over the query's words (True means half and half, a number is their
        share). `rerank` orders so many of the first by late interaction (MaxSim), scores staying
        cosines; it needs tokens=True at the start. `diversity` in 0..1 trades closeness for variety
        (MMR). `group_by` shows at most `group_size` hits of each value of a field. `explain` says
        of each hit, or of those with the ids given, where its score comes from
        (`Hit.explanation`). Raises InvalidInput, NotFound for an unknown id, PictureError.
        """
        asked = build_query(query, image=image, minus=minus, like=like or (), vector=vector)
        request = Request(
            limit=one_limit(limit, top_k, k),
            offset=whole("offset", offset, least=0),
            filter=parse_filter(filter),
            threshold=cosine(threshold),
            words=query_words(asked) if hybrid else "",
            hybrid=share("hybrid", 0.5 if hybrid is True else hybrid),
            rerank=late.check_rerank(whole("rerank", rerank, least=0), self._store),
            diversity=share("diversity", diversity),
            group_by=group_by,
            group_size=whole("group_size", group_size, least=1),
            without=tuple(part.id for part in asked.parts if part.id is not None),
        )
        if not len(self._live) and not self.count():
            return []
        if wanted := wanted_ids(explain):
            return explained(self, asked, partial(self._hits, asked, request), wanted)
        remember = self.remember
        return remember(asked, request, self._hits) if remember else self._hits(asked, request)

    def thumbnail(self, id: str) -> bytes | None:
        """Return a small JPEG of the item's picture, None where it has none."""
        return self._store.thumbnail(id)

    def picture(self, id: str) -> bytes | None:
        """Return the picture as it was sent, byte for byte, None where none was kept."""
        return self._store.picture(id)

    def sample(self, limit: int, filter: AnyFilter | None = None) -> list[str]:
        """Return at most `limit` ids, evenly out of all that match, oldest first."""
        return self._store.sample(whole("limit", limit, least=1), parse_filter(filter))

    def info(self) -> dict[str, Any]:
        """Return what the collection is: model, counts, index and its measured recall, damage."""
        with self._store.reading():
            self._live.refresh()
            meta = self._live.meta
            return {
                "path": str(self.folder or ":memory:"),
                "count": len(self._store),
                "model": meta.model,
                "fingerprint": meta.fingerprint,
                "dim": meta.dim,
                "precision": meta.precision,
                "spaces": self.spaces.describe(),
                **late.info(self._store),
                **self._live.info(),
                "pictures": self._store.picture_size(),
                "sequence": self._live.sequence,
                "format": meta.format,
                "created": meta.created,
                "damaged": sorted(self._live.damaged.values()),
            }

    def claim(self) -> None:
        """Make sure now that writing is possible; raises CollectionBusy."""
        self._writer.claim()

    def files(self) -> dict[str, KnownFile]:
        """Return what is remembered of each file of an indexed folder, by id."""
        return self._store.files()

    def contents(self, ids: Sequence[str]) -> dict[str, str | None]:
        """Return the content hash kept for each id that is there."""
        return self._store.contents(as_ids(ids))

    def touch(self, states: Mapping[int, FileState]) -> None:
        """Note that these files look different while their content is the same."""
        self._writer.touch(states)

    def optimize(self) -> None:
        """Do now what would come later: build the index, move the log; never needed."""
        self._writer.optimize()

    def compact(self) -> None:
        """Give space back, overwrite what was deleted, and build the index anew."""
        self._writer.compact()

    def close(self) -> None:
        """Save the index if nobody else is writing, and let go of the files. Twice is harmless."""
        try:
            # a copy that could not be saved costs time at the next opening, nothing else
            with suppress(CollectionBusy, NotAvailable, OSError):
                self._writer.close()
        finally:
            self._store.close()

    def __repr__(self) -> str:
        # as it is searched: neither the disk nor another thread is waited for
        where, held = self.folder or ":memory:", len(self._live)
        return f"<Collection {where}: {held:,} items, {self._live.meta.model}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, items: AnyItems, *, replace: bool) -> int:
        size = _BATCH_VECTORS if holds_own_vectors(self.embedder) else _BATCH_EMBEDDED
        # as the model itself would decode it: a picture and its query then give one vector
        hint = getattr(self.embedder, "picture_size", None)
        ready = prepared(items, size, size_hint=hint, keep=self.keep_pictures)
        return sum(self.put(batch, replace=replace) for batch in ready)

    def _hits(self, asked: Query, request: Request) -> list[Hit]:
        """Search one state of the collection, while other threads and processes write to it."""
        model = None
        for try_ in itertools.count():
            if model is not self.embedder:
                model = self.embedder
                try:
                    vector_M = embed_asked(model, asked, self.vectors)
                except (TriptychError, ValueError):
                    if model is self.embedder:
                        raise
                    continue  # a stored vector came of the next model
                reranker = late.reranker_of(asked, model) if request.rerank else None
            # who was overtaken by a writer begins again, in the end holding the writers off
            held = self._live.gate if try_ > 2 else nullcontext()
            with self._turns, held, self._store.reading():
                sequence = self._live.refresh()
                if model is not self.embedder:
                    continue
                try:
                    hits = Pipeline(self._store, self._live, request, vector_M, reranker).hits()
                except TriptychError:
                    if not self._is_overtaken(model, sequence):
                        raise
                    continue
                if not self._is_overtaken(model, sequence):
                    return hits
        raise AssertionError("unreachable")

    def _is_overtaken(self, model: EmbeddingModel, sequence: int) -> bool:
        return self._live.sequence != sequence or model is not self.embedder

    def _adopt(self, model: EmbeddingModel) -> None:
        """Give the model to a collection that has no items yet."""
        meta = self._store.meta
        if (meta.fingerprint, meta.dim) != (model.fingerprint, model.dim) and not len(self._store):
            self._store.adopt(model=model.name, fingerprint=model.fingerprint, dim=model.dim)
