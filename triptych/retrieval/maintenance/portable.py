"""Export a collection to one file, and import it somewhere else: the same answers."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq

from triptych.errors import (
    CollectionDamaged,
    DiskFull,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
)
from triptych.index.blobs import Blobs
from triptych.index.disk import FULL, sync_folder
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite import pictures
from triptych.index.sqlite.lock import WriterLock
from triptych.index.sqlite.meta import Meta, peek
from triptych.index.sqlite.records import Entry, Picture
from triptych.index.sqlite.store import Store
from triptych.index.sqlite.view import View
from triptych.retrieval.builder import build_index
from triptych.retrieval.folder import (
    INDEX,
    STORE,
    check_folder,
    make_folder,
    open_store,
    put_store,
)
from triptych.retrieval.maintenance.archive import (
    MANIFEST,
    PICTURES,
    Archive,
    ArchiveReader,
    Part,
    as_table,
    manifest_bytes,
    schema,
)
from triptych.retrieval.prepare import sent_bytes, weighed

Progress = Callable[[int, int], object]
"""Called with how many items are done, and how many there are."""

_PART_BYTES = 64 << 20
_SCRATCH = "import.tmp"
_LOCK = "importing"


def export_collection(
    store: Store, path: Path, *, replace: bool = False, progress: Progress | None = None
) -> Archive:
    """Write one state of the store to `path`, whole or not at all; it may be written to meanwhile.

    The model's own files are not in it. Raises InvalidInput where `path` is no file, or exists and
    `replace` is not said, CollectionDamaged naming a damaged item, DiskFull.
    """
    with store.view(keep_pictures=True) as view, archiving(path, replace=replace) as tar:
        return write_archive(store, view, tar, progress=progress)


@contextmanager
def archiving(path: Path, *, replace: bool = False) -> Iterator[tarfile.TarFile]:
    """Yield a tar that is at `path` once it is whole; raises as `export_collection` does."""
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file"
            raise InvalidInput(f"{path} is {what}, expected a file to write.", hint="Name another.")
        if path.exists() and not replace:
            raise InvalidInput(f"{path} exists already.", hint="Name another file, or say --force.")
        if not path.parent.is_dir():
            raise NotFound(f"There is no folder {path.parent}.")
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        _sweep(path)
        try:
            with scratch.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # it is being written: nobody sweeps it
                with tarfile.open(fileobj=file, mode="w") as tar:
                    yield tar
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(path)
        finally:
            scratch.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(
                f"The disk is full: {path} is not written.",
                hint="Free some space and run the same again.",
            ) from None
        raise NotAvailable(f"{path} cannot be written: {error.strerror}.") from None


def _sweep(path: Path) -> None:
    """Remove what exports to the same path that were killed have left."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def import_collection(path: Path, folder: Path, *, progress: Progress | None = None) -> Archive:
    """Make the collection in `folder` from the archive at `path`, whole or not at all.

    Raises InvalidInput where the file is no archive or the folder's collection has items,
    CollectionDamaged where a hash is wrong, CollectionBusy, NotAvailable, NotFound.
    """
    with _reading(path) as reader:
        _check_empty(folder)
        reader.verify()
        with _scratch(folder) as scratch:
            _fill(scratch, reader, progress)
            _publish(scratch, folder)
        return reader.archive


def write_archive(
    store: Store,
    view: View,
    tar: tarfile.TarFile,
    *,
    after: int = 0,
    progress: Progress | None = None,
) -> Archive:
    """Write the items of the rows after `after` to the tar."""
    parts = []
    done = 0
    sent: set[str] = set()
    for number, (raw, items, kept) in enumerate(_parts(view, after)):
        for picture in kept:
            if picture.sha256 not in sent:
                _add(tar, f"{PICTURES}{picture.sha256}", _sent(store, picture))
                sent.add(picture.sha256)
        name = f"items-{number:05}.parquet"
        _add(tar, name, raw)
        sha256 = hashlib.sha256(raw).hexdigest()
        parts.append(Part(name=name, items=items, bytes=len(raw), sha256=sha256))
        done += items
        if progress is not None:
            progress(done, view.count)
    space, meta = view.space, store.meta
    archive = Archive(
        collection=meta.collection,
        model=space.model,
        fingerprint=space.fingerprint,
        dim=space.dim,
        precision=space.precision,
        count=done,
        created=meta.created,
        parts=tuple(parts),
        pictures=len(sent),
        token_width=space.token_width,
    )
    _add(tar, MANIFEST, manifest_bytes(archive))
    return archive


def _sent(store: Store, picture: Picture) -> bytes:
    data = store.picture_data(picture)
    if data is None:
        raise CollectionDamaged(
            f"The picture {picture.sha256[:12]} is lost: its file is missing.",
            hint="Run triptych verify: it names the items.",
        )
    return data


def _parts(view: View, after: int) -> Iterator[tuple[bytes, int, list[Picture]]]:
    """Yield Parquet files, the number of items and the pictures of each, one in memory at most."""
    columns = schema(
        view.space.dim,
        view.space.precision,
        pictures=pictures.any_after(view.connection, after),
        token_width=view.space.token_width,
    )
    # float compression gains little, and codes of a dictionary nothing
    settings = {"compression": "zstd", "use_dictionary": ["modality", "root"]}
    batches = view.entries(after=after)
    entries = next(batches, None)
    while entries is not None:
        buffer, items, kept = BytesIO(), 0, []
        with pq.ParquetWriter(buffer, columns, **settings) as writer:
            while entries is not None and (not items or buffer.tell() < _PART_BYTES):
                writer.write_table(as_table(entries, columns))
                items += len(entries)
                kept += [entry.picture for entry in entries if entry.picture is not None]
                entries = next(batches, None)
        yield buffer.getvalue(), items, kept


def _add(tar: tarfile.TarFile, name: str, raw: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(raw)
    tar.addfile(member, BytesIO(raw))


def entries_in(path: Path, *, of: Meta) -> list[Entry]:
    """Return all items of an archive, with their pictures; its vectors are to be those of `of`.

    Raises as `import_collection` does, and ModelMismatch.
    """
    with _reading(path) as reader:
        found = reader.archive
        if (found.fingerprint, found.dim, found.precision, found.token_width) != (
            of.fingerprint, of.dim, of.precision, of.token_width,
        ):  # fmt: skip
            raise ModelMismatch(f"{path} holds vectors of {found.model}, not of {of.model}.")
        reader.verify()
        return [one for part in reader.entries() for one in _with_pictures(reader, part)]


@contextmanager
def _reading(path: Path) -> Iterator[ArchiveReader]:
    try:
        with tarfile.open(path, mode="r:") as tar:
            yield ArchiveReader(path, tar)
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except tarfile.TarError:
        raise InvalidInput(f"{path} is not an archive of a collection.") from None
    except OSError as error:
        raise NotAvailable(f"{path} cannot be imported: {error.strerror}.") from None


def _check_empty(folder: Path) -> None:
    check_folder(folder)
    if peek(folder / STORE) is None:
        return
    store = open_store(folder)
    count = len(store)
    store.close()
    if count:
        raise InvalidInput(
            f"The collection in {folder} has {count:,} items.",
            hint="Import into a new one: triptych import FILE -c NAME",
        )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder beside, or within one that exists already; what a kill left there goes."""
    beside = folder.with_name(f".{folder.name}.{_SCRATCH}")
    scratch = folder / _SCRATCH if folder.exists() else beside
    make_folder(scratch)
    lock = WriterLock(scratch / _LOCK)
    lock.acquire()
    try:
        for path in scratch.iterdir():
            if path != lock.path:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _fill(scratch: Path, reader: ArchiveReader, progress: Progress | None) -> None:
    archive = reader.archive
    store = Store.open(
        scratch / STORE,
        model=archive.model,
        fingerprint=archive.fingerprint,
        dim=archive.dim,
        precision=archive.precision,
        token_width=archive.token_width,
    )
    try:
        store.lock()
        for entries in reader.entries():
            for part in weighed(_with_pictures(reader, entries), sent_bytes):
                store.write(part, replace=False)
            if progress is not None:
                progress(len(store), archive.count)
        # an approximate index takes long, and is built in the background once it is opened
        build_index(store, Snapshots(scratch / INDEX), ("flat",))
    finally:
        store.close()


def _with_pictures(reader: ArchiveReader, entries: Sequence[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if entry.picture is not None:
            entry = replace(entry, picture=reader.picture(entry.picture.sha256))
        yield entry


def _publish(scratch: Path, folder: Path) -> None:
    if scratch.parent != folder:
        (scratch / _LOCK).unlink()
        scratch.rename(folder)
        sync_folder(folder.parent)
        return
    with WriterLock(folder / "lock"):
        _check_empty(folder)
        if (scratch / PICTURES).is_dir():  # no item without its picture
            Blobs(folder / PICTURES).take(scratch / PICTURES)
        put_store(scratch / STORE, folder)
        if (scratch / INDEX).is_dir():  # of no items there is none
            (scratch / INDEX).rename(folder / INDEX)
        sync_folder(folder)
