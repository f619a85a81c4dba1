"""Documents into a collection; again: only what is new, changed or gone.

A file is known by the hash of its bytes, which its first item carries and which is written last:
what was interrupted is done again. Everything goes through a collection's own methods, so a server
takes documents as a folder does.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from triptych.encoders.pictures.picture import PictureLimits
from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.ingest.offers import Failure
from triptych.retrieval.ingest.scan import SUFFIXES as PICTURES
from triptych.retrieval.ingest.scan import Scan, is_below, scan_folder
from triptych.retrieval.prepare import batches
from triptych.retrieval.rag.citation import READERS, SUFFIXES
from triptych.retrieval.rag.cut import Cut
from triptych.retrieval.rag.document import DocumentError, DocumentLimits, Note
from triptych.retrieval.rag.inside import read_file
from triptych.retrieval.rag.searchable import Searchable
from triptych.retrieval.rag.split import SplitConfig
from triptych.types import Item

_BATCH = 32  # decoded pictures held at once
_AT_ONCE = 10_000  # as many as a server gives
_MOST_ITEMS = 10_000_000  # of one document
_NAMED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """How documents are taken in; `prune` drops what vanished, however much."""

    split: SplitConfig = field(default_factory=SplitConfig)
    limits: DocumentLimits = field(default_factory=DocumentLimits)
    pictures: PictureLimits = field(default_factory=PictureLimits)
    prune: bool = False
    progress: Callable[[int, int], object] | None = None  # documents done, and all
    on_failure: Callable[[Failure], object] | None = None


@dataclass(slots=True)
class DocumentReport:
    """Counts of documents; `failures` were left out, `notes` say what else a person should know.

    `passed` are the files of a folder that are neither documents nor pictures, by their ending.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    pictures: int = 0
    failures: list[Failure] = field(default_factory=list)
    notes: list[Failure] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """How many documents were left out."""
        return len(self.failures)


def index_documents(
    collection: Searchable, source: str | Path, options: IntakeOptions | None = None
) -> DocumentReport:
    """Take in a folder's .md, .html, .pdf and .txt files, or one file; return what came of it.

    Each file is cut into passages and pictures. What vanished from a folder is dropped. Links are
    not followed, nothing outside of the folder (of a single file: its own) is read, nothing is
    fetched or run. Raises NotFound for no such path, NotAvailable where a library is missing, and
    InvalidInput where the folder or more than half of the documents vanished, unless `prune`.
    """
    return _Intake(collection, options or IntakeOptions()).take(source)


def check_readers(sources: Iterable[str | Path]) -> None:
    """Raise NotAvailable where a library is missing that a document in one of these needs."""
    for source in sources:
        given = os.path.abspath(os.path.expanduser(source))
        paths = [given]
        if os.path.isdir(given):
            paths = [found.path for found in scan_folder(given, suffixes=SUFFIXES).found]
        suffixes = {Path(path).suffix.lower() for path in paths}
        for kind in sorted({SUFFIXES[suffix] for suffix in suffixes & SUFFIXES.keys()}):
            READERS.resolve(kind)


def check_there(
    collection: Searchable, sources: Iterable[str | Path], options: IntakeOptions
) -> None:
    """Raise as `index_documents` would where a path is not there: before the work on others."""
    for source in sources:
        given = os.path.abspath(os.path.expanduser(source))
        if not os.path.lexists(given):
            _left_of(collection, source, prune=options.prune)


class _Intake:
    def __init__(self, collection: Searchable, options: IntakeOptions) -> None:
        self._collection = collection
        self._options = options
        self._report = DocumentReport()
        self._source = ""  # what a person called it
        self._fresh: set[str] = set()  # SHA-256 of what was added

    def take(self, source: str | Path) -> DocumentReport:
        started, self._source = time.monotonic(), str(source)
        given = os.path.abspath(os.path.expanduser(source))
        if os.path.isdir(given):
            top = os.path.realpath(given)
            scan = scan_folder(top, suffixes=SUFFIXES)
            passed = {kind: n for kind, n in scan.passed.items() if kind not in PICTURES}
            self._report.passed = Counter(passed)  # pictures come in with what shows them
            for place, code, reason in scan.failed:
                self._fail(place, code, reason)
            self._drop_vanished(top, scan)
            self._all(top, [found.path for found in scan.found])
            self._note_moved(top)
        elif os.path.lexists(given):
            folder = os.path.realpath(os.path.dirname(given))
            self._all(folder, [os.path.join(folder, os.path.basename(given))])
        else:
            for path in _left_of(self._collection, source, prune=self._options.prune):
                self._report.removed += self._forget(path)
        self._report.seconds = time.monotonic() - started
        return self._report

    def _all(self, root: str, paths: list[str]) -> None:
        for at, path in enumerate(paths):
            try:
                self._one(Path(path), Path(root))
            except DocumentError as error:
                self._fail(path, error.code, str(error))
                self._forget(path)
            if self._options.progress is not None:
                self._options.progress(at + 1, len(paths))

    def _one(self, path: Path, root: Path) -> None:
        data = read_file(path, max_bytes=self._options.limits.max_bytes)
        known = self._collection.get([f"{path}#0"])[0]
        state = self._state(data)
        if known is not None and known.metadata.get("state") == state:
            seen_from = str(known.metadata.get("folder"))
            # else its pictures and links may lead to what was out of its reach
            if seen_from == str(root) or is_below(str(root), seen_from):
                self._report.unchanged += 1
                return
        if known is None:
            self._fresh.add(sha256(data).hexdigest())
        cut = Cut(
            path=path,
            root=root,
            data=data,
            note=lambda note: self._note(path, note),
            split=self._options.split,
            limits=self._options.limits,
            pictures=self._options.pictures,
        )
        before = 0 if known is None else int(known.metadata.get("items", 0))
        head = self._write(cut)
        self._collection.delete(f"{path}#{at}" for at in range(cut.count, before))
        if head is None:
            self._note(path, Note(code="document_empty", reason="There is nothing in it."))
            return
        marked = {**head.metadata, "state": state, "items": cut.count}
        self._collection.upsert([replace(head, metadata=marked)])
        self._report.added += known is None
        self._report.updated += known is not None

    def _write(self, cut: Cut) -> Item | None:
        """Store all items but the first, and return that one."""
        items = cut.items()
        head = next(items, None)
        if head is None:
            return None
        for batch in batches(items, _BATCH):
            self._collection.upsert(batch)
            self._count(batch)
        self._count([head])
        return head

    def _state(self, data: bytes) -> str:
        """Return what tells one way of cutting one content from another."""
        split = self._options.split
        return f"2:{split.size}:{split.overlap}:{sha256(data).hexdigest()}"

    def _count(self, items: list[Item]) -> None:
        pictures = sum(item.image is not None for item in items)
        self._report.pictures += pictures
        self._report.passages += len(items) - pictures

    def _drop_vanished(self, top: str, scan: Scan) -> None:
        known = _documents(self._collection, top)
        gone = known.difference(found.path for found in scan.found)
        gone = {path for path in gone if not any(is_below(path, at) for at in scan.unlisted)}
        if 2 * len(gone) > len(known) and not self._options.prune:
            raise InvalidInput(
                f"{len(gone):,} of the {len(known):,} documents indexed from {top!r} are gone.",
                hint="Is the disk there? If they are to be dropped, say --prune (prune=True).",
            )
        for path in gone:
            self._report.removed += self._forget(path)

    def _note_moved(self, top: str) -> None:
        """Name the folders that are gone whose documents were added once more from this one."""
        if not self._fresh:
            return
        anywhere = {"document": {"$exists": True}}
        folders = self._collection.facets("folder", filter=anywhere, limit=_AT_ONCE)["folder"]
        for folder in (str(folder) for folder, _ in folders):
            if os.path.lexists(folder):
                continue
            wanted = {**anywhere, "folder": folder}
            contents = self._collection.facets("content", filter=wanted, limit=_AT_ONCE)["content"]
            same = sum(content in self._fresh for content, _ in contents)
            if same:
                reason = (
                    f"It is gone but still indexed, and {same:,} of its documents were added "
                    f"anew from {top!r}. To drop it, index it again with --prune (prune=True)."
                )
                self._note(Path(folder), Note(code="documents_moved", reason=reason))

    def _forget(self, path: str) -> bool:
        """Delete all items of a document; return whether there were any."""
        left = self._collection.count({"document": path})
        known, at = left > 0, 0
        while left > 0 and at < _MOST_ITEMS:
            left -= self._collection.delete(f"{path}#{n}" for n in range(at, at + _NAMED))
            at += _NAMED
        return known

    def _fail(self, path: str, code: str, reason: str) -> None:
        failure = Failure(source=self._source, place=path, code=code, reason=reason)
        self._report.failures.append(failure)
        if self._options.on_failure is not None:
            self._options.on_failure(failure)

    def _note(self, path: Path, note: Note) -> None:
        if len(self._report.notes) < _NAMED:
            failure = Failure(
                source=self._source, place=str(path), code=note.code, reason=note.reason
            )
            self._report.notes.append(failure)


def _left_of(collection: Searchable, source: str | Path, *, prune: bool) -> set[str]:
    """Return what was indexed from a folder that is gone, if that is to be dropped."""
    top = os.path.realpath(os.path.expanduser(source))
    known = _documents(collection, top)
    if not known:
        raise NotFound(f"There is no folder or file {str(source)!r}.")
    if not prune:
        raise InvalidInput(
            f"The folder {top!r} is gone, and {len(known):,} documents were indexed from it.",
            hint="Is the disk there? If they are to be dropped, say --prune (prune=True).",
        )
    return known


def _documents(collection: Searchable, top: str) -> set[str]:
    """Return the indexed documents that lie in a folder, from whichever they were taken in."""
    known: set[str] = set()
    name = top.rstrip("/")
    inside = {"$gte": f"{name}/", "$lt": f"{name}0"}  # 0 is what comes after / in Unicode
    while True:
        wanted = {
            "folder": {"$exists": True},
            "document": {**inside, "$nin": sorted(known)},
        }
        facets = collection.facets("document", filter=wanted, limit=_AT_ONCE)
        fresh = {str(path) for path, _ in facets["document"]}
        known |= fresh
        if len(fresh) < _AT_ONCE:
            return known
