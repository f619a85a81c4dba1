"""A folder of pictures into a collection; again: only what is new, changed or gone.

Threads read, hash and decode while the model embeds. Each batch is one durable transaction, so an
interrupt loses nothing that was acknowledged, and the next run goes on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from triptych.encoders.pictures import PictureLimits, load_picture, picture_bytes, thumbnail
from triptych.errors import InvalidInput, NotFound, PictureError
from triptych.index.records import FileState, KnownFile
from triptych.retrieval.collection import Collection
from triptych.retrieval.prepare import Prepared
from triptych.retrieval.scan import Found, Scan, is_below, scan_folder
from triptych.types import Item

Progress = Callable[[int, int], object]

_BATCH = 32
_BATCH_PIXELS = 64_000_000  # pictures that are not JPEG come in full size
_AHEAD = 16
_THREADS = 2
_TOUCHED = 1_000


@dataclass(slots=True)
class IngestReport:
    """What a run did; `failed` has path, code and reason of each picture that was left out."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What became of one file: one of a picture, nothing new (touch), or a failure."""

    found: Found
    known: KnownFile | None
    prepared: Prepared | None = None
    error: PictureError | None = None
    keep: bool = True  # of a failure: what was indexed before may still be true


def index_folder(
    collection: Collection,
    root: str | Path,
    *,
    prune: bool = False,
    progress: Progress | None = None,
    limits: PictureLimits | None = None,
) -> IngestReport:
    """Return what was added, updated, removed and left out.

    Files that vanished are dropped; raises InvalidInput where that is more than half of them,
    unless `prune`. Raises NotFound for no such folder.
    """
    started = time.monotonic()
    top = os.path.realpath(os.path.expanduser(root))
    known = {id: file for id, file in collection.files().items() if is_below(id, top)}
    _check_root(top, num_known=len(known), prune=prune)
    scan = scan_folder(top) if os.path.isdir(top) else Scan()
    gone = _vanished(known, [found.path for found in scan.found], scan.unlisted)
    if 2 * len(gone) > len(known) and not prune:
        raise InvalidInput(
            f"{len(gone):,} of the {len(known):,} pictures indexed from {top!r} are gone.",
            hint="Is the disk there? If they are to be dropped, say --prune (prune=True).",
        )
    collection.claim()  # whoever cannot write learns it before the work
    run = _Run(collection, IngestReport(failed=scan.failed))
    run.drop(gone)
    fresh = [found for found in scan.found if not _is_unchanged(found, known)]
    run.report.unchanged = done = len(scan.found) - len(fresh)
    hint = getattr(collection.embedder, "picture_size", None)
    read = partial(_read, known=known, limits=limits or PictureLimits(), size_hint=hint)
    with closing(_in_threads(read, fresh)) as all_seen:
        for seen in all_seen:
            run.take(seen)
            done += 1
            if progress is not None:
                progress(done, len(scan.found))
    run.flush()
    run.report.seconds = time.monotonic() - started
    return run.report


class _Run:
    """Collects what is ready, and writes it in batches."""

    def __init__(self, collection: Collection, report: IngestReport) -> None:
        self.report = report
        self._collection = collection
        self._batch: list[_Seen] = []
        self._pixels = 0
        self._touched: dict[int, FileState] = {}

    def take(self, seen: _Seen) -> None:
        """Take what a thread has made of a file."""
        if seen.error is not None:
            self._fail(seen, seen.error, keep=seen.keep)
        elif seen.prepared is None:
            assert seen.known is not None, "only a known file can be unchanged"
            self._touched[seen.known.row] = seen.found.state
            self.report.unchanged += 1
        else:
            self._batch.append(seen)
            width, height = getattr(seen.prepared.item.image, "size", (0, 0))
            self._pixels += width * height
        if len(self._batch) >= _BATCH or self._pixels > _BATCH_PIXELS:
            self._write_batch()
        if len(self._touched) >= _TOUCHED:
            self._write_touched()

    def flush(self) -> None:
        """Write the rest."""
        self._write_batch()
        self._write_touched()

    def drop(self, ids: Iterable[str]) -> None:
        """Delete items."""
        if ids := list(ids):
            self.report.removed += self._collection.delete(ids)

    def _write_batch(self) -> None:
        batch, self._batch, self._pixels = self._batch, [], 0
        if not batch:
            return
        try:
            self._put(batch)
        except InvalidInput:
            # one picture that the model cannot place must not take its neighbours with it
            for seen in batch:
                try:
                    self._put([seen])
                except InvalidInput as error:
                    self._fail(seen, error, keep=False)

    def _put(self, batch: list[_Seen]) -> None:
        self._collection.put([seen.prepared for seen in batch if seen.prepared is not None])
        updated = sum(seen.known is not None for seen in batch)
        self.report.updated += updated
        self.report.added += len(batch) - updated

    def _write_touched(self) -> None:
        if self._touched:
            self._collection.touch(self._touched)
            self._touched = {}

    def _fail(self, seen: _Seen, error: InvalidInput, *, keep: bool) -> None:
        self.report.failed.append((seen.found.path, error.code, str(error)))
        if seen.known is not None and not keep:
            self.drop([seen.found.path])


def _read(
    found: Found, *, known: dict[str, KnownFile], limits: PictureLimits, size_hint: int | None
) -> _Seen:
    before = known.get(found.path)
    try:
        data = picture_bytes(Path(found.path), limits=limits)
    except PictureError as error:
        # that a file cannot be read now says nothing about the picture; that it is empty does
        lost = error.code in ("picture_empty", "picture_too_large")
        return _Seen(found, before, error=error, keep=not lost)
    assert data is not None, "a path has bytes"
    content = hashlib.sha256(data).hexdigest()
    if before is not None and before.content == content:
        return _Seen(found, before)
    try:
        picture = load_picture(data, limits=limits, size_hint=size_hint)
    except PictureError as error:
        return _Seen(found, before, error=error, keep=False)
    item = Item(id=found.path, image=picture, uri=found.path)
    small = thumbnail(picture)
    prepared = Prepared(item=item, thumbnail=small, content=content, file=found.state)
    return _Seen(found, before, prepared=prepared)


def _in_threads(
    read: Callable[[Found], _Seen], files: Iterable[Found]
) -> Generator[_Seen, None, None]:
    """Yield in order; only so many are read ahead as memory allows."""
    waiting: deque[Future[_Seen]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as pool:
        try:
            for found in files:
                waiting.append(pool.submit(read, found))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _is_unchanged(found: Found, known: dict[str, KnownFile]) -> bool:
    before = known.get(found.path)
    if before is None:
        return False
    old, new = before.state, found.state
    return (old.size, old.mtime_ns) == (new.size, new.mtime_ns)


def _vanished(known: Iterable[str], found: Iterable[str], unlisted: list[str]) -> list[str]:
    gone = set(known).difference(found)
    return sorted(id for id in gone if not any(is_below(id, folder) for folder in unlisted))


def _check_root(top: str, *, num_known: int, prune: bool) -> None:
    if os.path.isdir(top) or (num_known and prune and not os.path.exists(top)):
        return
    if os.path.exists(top):
        raise InvalidInput(f"{top!r} is a file, expected a folder.")
    if num_known:
        raise InvalidInput(
            f"The folder {top!r} is gone, and {num_known:,} pictures were indexed from it.",
            hint="Is the disk there? If they are to be dropped, say --prune (prune=True).",
        )
    raise NotFound(f"There is no folder {top!r}.")
