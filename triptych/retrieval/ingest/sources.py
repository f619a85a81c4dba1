"""What `triptych index` is pointed at: folders, pictures, patterns, manifests and tars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.ingest.columns import Wanted
from triptych.retrieval.ingest.globs import is_pattern, scan_files, scan_pattern
from triptych.retrieval.ingest.manifest import Manifest
from triptych.retrieval.ingest.offers import RowSource
from triptych.retrieval.ingest.rows import KINDS
from triptych.retrieval.ingest.rows_jsonl import TO_LINES
from triptych.retrieval.ingest.scan import SUFFIXES, Scan
from triptych.retrieval.ingest.webdataset import Shard
from triptych.retrieval.rag.citation import SUFFIXES as DOCUMENTS

_PACKED = (".gz", ".tgz", ".zip", ".zst", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of pictures, which is followed: what vanishes from it is dropped."""

    path: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures that a pattern matched, or that were named one by one."""

    path: str  # what a person called them
    scan: Scan


Source: TypeAlias = Folder | Pictures | RowSource


def sources_of(names: Sequence[str], wanted: Wanted | None = None) -> list[Source]:
    """Return what the names stand for, in order; pictures named one by one are one source.

    Raises NotFound where a pattern matches nothing, InvalidInput for a file of another kind.
    """
    found: list[Source] = []
    pictures: list[str] = []
    for name in names:
        kind = os.path.splitext(name)[1].lower()
        if is_pattern(name):
            found += _matches(name, kind, wanted or Wanted())
        elif os.path.isfile(os.path.expanduser(name)):
            if kind in SUFFIXES:
                pictures.append(name)
            else:
                found.append(_rows(os.path.expanduser(name), kind, wanted or Wanted()))
        elif kind in (*KINDS, ".tar") and not os.path.isdir(os.path.expanduser(name)):
            found.append(_rows(os.path.expanduser(name), kind, wanted or Wanted()))
        else:
            found.append(Folder(name))
    if pictures:
        title = pictures[0] if len(pictures) == 1 else f"{len(pictures):,} pictures"
        found.append(Pictures(title, scan_files(pictures)))
    return found


def _matches(pattern: str, kind: str, wanted: Wanted) -> list[Source]:
    scan = scan_pattern(pattern)
    if not scan.found and not scan.failed:
        raise NotFound(f"Nothing matches {pattern!r}.", hint="Wildcards skip hidden names.")
    if kind in (*KINDS, ".tar"):
        return [_rows(found.path, kind, wanted) for found in scan.found]
    return [Pictures(pattern, scan)]


def _rows(path: str, kind: str, wanted: Wanted) -> RowSource:
    if kind in KINDS:
        return Manifest(path, wanted)
    if kind == ".tar":
        return Shard(path)
    hint = "Unpack it first." if kind in _PACKED else None
    if kind == ".json":
        hint = f"Of an array: {TO_LINES}"
    if kind in DOCUMENTS:
        hint = f"It is a document: triptych index --documents {path}"
    raise InvalidInput(
        f"{path} is {'packed' if kind in _PACKED else 'a file of another kind'}, "
        f"expected a folder, pictures, {', '.join(KINDS)} or .tar.",
        hint=hint,
    )
