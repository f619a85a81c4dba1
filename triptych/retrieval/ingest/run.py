"""Sources into a collection; again: only what is new, changed or gone.

An item is compared by the hash of its content, which lies beside it in the store, so the store is
all that a run which goes on needs to know: there is no progress file that could be wrong.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from triptych.encoders.pictures.picture import PictureLimits
from triptych.errors import InvalidInput, NotFound
from triptych.index.sqlite.records import FileState, KnownFile
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.lanes import Done, Lane, blocks, in_lanes
from triptych.retrieval.ingest.offers import Failure, Offer, RowSource
from triptych.retrieval.ingest.scan import Found, Scan, is_below, scan_folder
from triptych.retrieval.ingest.sources import Folder, Pictures, Source
from triptych.retrieval.ingest.twins import Twins, num_moved
from triptych.types import Item

Progress = Callable[[int, int | None], object]
"""Called with how many are done, and how many there are as far as that is known."""

NAMED = 100
"""Failures that a report names; all of them go to `on_failure`."""

_TOUCHED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How a run works; `lanes` blocks are worked on at a time."""

    prune: bool = False
    lanes: int = 2
    limits: PictureLimits = field(default_factory=PictureLimits)
    progress: Progress | None = None
    on_failure: Callable[[Failure], object] | None = None


@dataclass(slots=True)
class IngestReport:
    """What a run did; `failures` are the first of those that were left out.

    `moved` are files that were found under another name, with the same bytes: neither added nor
    removed.
    `gone` are the other folders that items were indexed from and that are not there, with their
    number: a folder that was moved leaves its items behind. `passed` are the files of a folder that
    are named as no picture, by their ending.
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many of what the source offers have been dealt with."""
        return self.added + self.updated + self.moved + self.unchanged + self.failed


def check_source(collection: Collection, source: Source, options: IngestOptions) -> None:
    """Raise as `index_source` would where a folder is not there: before the work on others."""
    top = _top(source.path)
    if isinstance(source, Folder) and not os.path.isdir(top):
        known = sum(is_below(id, top) for id in collection.files())
        _check_root(top, num_known=known, prune=options.prune)


def index_source(
    collection: Collection, source: Source, options: IngestOptions | None = None
) -> IngestReport:
    """Return what was added, updated, removed and left out.

    Each batch is one durable transaction: whatever stops a run, the next one goes on. Raises
    InvalidInput or NotFound where nothing of the source can be used.
    """
    started = time.monotonic()
    options = options or IngestOptions()
    if isinstance(source, Folder):
        report = _index_folder(collection, source.path, options)
    elif isinstance(source, Pictures):
        collection.claim()
        known = collection.files()
        run = _Run(collection, source.path, options)
        report = _index_scan(source.scan, known, run, Twins(known, source.scan.found))
    else:
        report = _index_rows(collection, source, options)
    report.seconds = time.monotonic() - started
    return report


def index_folder(
    collection: Collection, root: str | Path, options: IngestOptions | None = None
) -> IngestReport:
    """Index a folder of pictures.

    Files that vanished are dropped; raises InvalidInput where that is more than half of them,
    unless `prune`. One that was moved or copied takes over what is stored of it, from anywhere in
    the collection. Raises NotFound for no such folder.
    """
    return index_source(collection, Folder(str(root)), options)


def _top(root: str) -> str:
    return os.path.realpath(os.path.expanduser(root))


def _index_folder(collection: Collection, root: str, options: IngestOptions) -> IngestReport:
    top = _top(root)
    files = collection.files()
    known = {id: file for id, file in files.items() if is_below(id, top)}
    _check_root(top, num_known=len(known), prune=options.prune)
    scan = scan_folder(top) if os.path.isdir(top) else Scan()
    gone = _vanished(known, [found.path for found in scan.found], scan.unlisted)

    def check(num_gone: int) -> None:
        if 2 * num_gone > len(known) and not options.prune:
            raise InvalidInput(
                f"{num_gone:,} of the {len(known):,} pictures indexed from {top!r} are gone.",
                hint="Is the disk there? If they are to be dropped, say --prune (prune=True).",
            )

    check(len(gone) - num_moved(gone, known, scan.found))
    collection.claim()  # whoever cannot write learns it before the work
    run = _Run(collection, top, options)
    run.report.gone, run.report.passed = _gone_folders(files, top), scan.passed
    twins = Twins(files, scan.found, gone)
    lost = set(gone).difference(twins.gone)
    run.drop(lost)
    report = _index_scan(scan, known, run, twins)
    check(len(lost) + len(twins.gone))
    run.drop(twins.gone)
    return report


def _index_scan(scan: Scan, known: dict[str, KnownFile], run: _Run, twins: Twins) -> IngestReport:
    for path, code, reason in scan.failed:
        run.fail(Failure(source=run.source, place=path, code=code, reason=reason))
    fresh = [found for found in scan.found if not _is_unchanged(found, known)]
    run.report.unchanged = len(scan.found) - len(fresh)
    run.rows_of = {found.path: known[found.path].row for found in fresh if found.path in known}
    total = len(scan.found) + len(scan.failed)
    return run.all_of(map(_file_offer, fresh), total=lambda: total, twins=twins)


def _index_rows(collection: Collection, source: RowSource, options: IngestOptions) -> IngestReport:
    collection.claim()
    run = _Run(collection, source.path, options)
    num_read, at_end = 0, False

    def offers() -> Iterator[Offer]:
        nonlocal num_read, at_end
        for found in source.offers():
            num_read += 1
            if isinstance(found, Failure):
                run.fail(found)
            else:
                yield found
        at_end = True

    def total() -> int | None:
        return num_read if at_end else source.total(num_read) or None

    return run.all_of(offers(), total=total)


class _Run:
    """Takes down what comes out of the lanes, and does what must be done in order."""

    def __init__(self, collection: Collection, source: str, options: IngestOptions) -> None:
        self.source = source
        self.report = IngestReport()
        self.rows_of: dict[str, int] = {}  # of files that are known: what is lost is dropped
        self._collection = collection
        self._options = options
        self._touched: dict[int, FileState] = {}

    def all_of(
        self,
        offers: Iterable[Offer],
        *,
        total: Callable[[], int | None],
        twins: Twins | None = None,
    ) -> IngestReport:
        """Take all offers in; return the report."""
        lane = Lane(self._collection, self._options.limits, twins)
        some = blocks(offers, lambda offer: offer.num_bytes)
        self._show(total())
        with closing(in_lanes(lane.take, some, lanes=self._options.lanes)) as ended:
            for done in ended:
                self._note(done)
                if twins is not None:
                    self._move(done, twins)
                self._show(total())
        self._write_touched()
        return self.report

    def drop(self, ids: Iterable[str]) -> None:
        """Delete items."""
        if ids := list(ids):
            self.report.removed += self._collection.delete(ids)

    def fail(self, failure: Failure) -> None:
        """Count a failure, and pass it on."""
        self.report.failed += 1
        if len(self.report.failures) < NAMED:
            self.report.failures.append(failure)
        if self._options.on_failure is not None:
            self._options.on_failure(failure)

    def _note(self, done: Done) -> None:
        self.report.added += done.added
        self.report.updated += done.updated
        self.report.unchanged += len(done.unchanged)
        for offer in done.unchanged:
            if offer.file is not None and offer.item.id in self.rows_of:
                self._touched[self.rows_of[offer.item.id]] = offer.file
        for offer, error in done.failed:
            place, id = offer.place, offer.item.id
            self.fail(
                Failure(
                    source=self.source,
                    place=place,
                    id=None if offer.file else id,
                    code=error.code,
                    reason=str(error),
                )
            )
        self.drop(id for id in done.lost if id in self.rows_of)
        if len(self._touched) >= _TOUCHED:
            self._write_touched()

    def _move(self, done: Done, twins: Twins) -> None:
        """Count what came under a new name; drop the old one where that is gone."""
        gone = [twins.moved(content) for content in done.copied]
        old = [id for id in gone if id is not None]
        self.report.moved += len(old)
        self.report.added += len(gone) - len(old)
        if old:
            self._collection.delete(old)

    def _show(self, total: int | None) -> None:
        if self._options.progress is not None:
            self._options.progress(self.report.done, total)

    def _write_touched(self) -> None:
        if self._touched:
            self._collection.touch(self._touched)
            self._touched = {}


def _file_offer(found: Found) -> Offer:
    item = Item(id=found.path, image=found.path, uri=found.path)
    return Offer(place=found.path, item=item, file=found.state)


def _is_unchanged(found: Found, known: dict[str, KnownFile]) -> bool:
    before = known.get(found.path)
    if before is None:
        return False
    old, new = before.state, found.state
    return (old.size, old.mtime_ns) == (new.size, new.mtime_ns)


def _vanished(known: dict[str, KnownFile], found: Iterable[str], unlisted: list[str]) -> list[str]:
    gone = set(known).difference(found)
    gone = {id for id in gone if not any(is_below(id, folder) for folder in unlisted)}
    # what a pattern found may be there although a folder's scan passes it by
    return sorted(
        id for id in gone if is_below(id, known[id].state.root) or not os.path.lexists(id)
    )


def _gone_folders(files: dict[str, KnownFile], top: str) -> dict[str, int]:
    """Return the folders outside of `top` that are not there, and how many files came of each."""
    others = Counter(
        file.state.root
        for id, file in files.items()
        if is_below(id, file.state.root) and not is_below(id, top)
    )
    return {root: count for root, count in others.items() if not os.path.lexists(root)}


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
    raise NotFound(f"There is no folder or file {top!r}.")
