"""Files by a pattern with * ? [] and **, as a shell would find them."""

from __future__ import annotations

import os
import re
import stat
from fnmatch import translate

from triptych.index.sqlite.records import FileState
from triptych.retrieval.ingest.scan import SUFFIXES, Found, Scan

_MAGIC = re.compile(r"[*?[]")


def is_pattern(text: str) -> bool:
    """Whether `text` is a pattern rather than the name of something that is there."""
    return _MAGIC.search(text) is not None and not os.path.lexists(os.path.expanduser(text))


def scan_pattern(pattern: str) -> Scan:
    """Return the files that match, sorted.

    Links are followed where a part of the pattern matches them, never by `**`. Wildcards skip
    hidden names. Where the pattern names no ending only pictures are taken.
    """
    absolute = os.path.abspath(os.path.expanduser(pattern))
    parts = absolute.split(os.sep)[1:]
    first = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - 1)
    base = os.path.realpath(os.sep + os.path.join("", *parts[:first]))
    return _Walk(absolute, parts[first:]).scan(base)


def scan_files(paths: list[str]) -> Scan:
    """Return files that were named one by one, with their absolute paths."""
    scan = Scan()
    for path in sorted({os.path.abspath(os.path.expanduser(path)) for path in paths}):
        _look(path, path, scan)
    return scan


class _Walk:
    """Follows the parts of a pattern down from a folder, into no folder twice."""

    def __init__(self, pattern: str, parts: list[str]) -> None:
        self._pattern = pattern
        self._parts = [*parts, "*"] if parts[-1] == "**" else parts
        self._matches = [re.compile(translate(part)).match for part in self._parts]
        ending = os.path.splitext(self._parts[-1])[1]
        self._any_ending = bool(ending) and not _MAGIC.search(ending)

    def scan(self, base: str) -> Scan:
        scan = Scan()
        ahead, seen = [(base, 0)], {(base, 0)}
        while ahead:
            folder, at = ahead.pop()
            for path, next_at in self._below(folder, at, scan):
                if next_at == len(self._parts):
                    self._take(path, scan)
                elif (path, next_at) not in seen:
                    seen.add((path, next_at))
                    ahead.append((path, next_at))
        scan.found = list({found.path: found for found in scan.found}.values())
        scan.found.sort(key=lambda found: found.path)
        return scan

    def _below(self, folder: str, at: int, scan: Scan) -> list[tuple[str, int]]:
        """Return what part `at` of the pattern leads to, each with the part that comes next."""
        part, is_last = self._parts[at], at == len(self._parts) - 1
        deep = part == "**"
        entries = _entries(folder, scan)
        if deep:
            folders = [e for e in entries if e.is_dir(follow_symlinks=False)]
            shown = [e.path for e in folders if not e.name.startswith(".")]
            return [(folder, at + 1), *((path, at) for path in shown)]
        hidden = part.startswith(".")
        named = [e for e in entries if self._matches[at](e.name)]
        named = [e for e in named if hidden or not e.name.startswith(".")]
        return [(e.path, at + 1) for e in named if e.is_dir() != is_last]

    def _take(self, path: str, scan: Scan) -> None:
        if self._any_ending or os.path.splitext(path)[1].lower() in SUFFIXES:
            _look(path, self._pattern, scan)


def _entries(folder: str, scan: Scan) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            reason = f"The folder cannot be listed: {os.strerror(error.errno or 0)}."
            scan.failed.append((folder, "folder_unreadable", reason))
        return []


def _look(path: str, root: str, scan: Scan) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        reason = f"It cannot be read: {os.strerror(error.errno or 0)}."
        scan.failed.append((path, "picture_missing", reason))
        return
    if stat.S_ISREG(status.st_mode):
        state = FileState(root=root, size=status.st_size, mtime_ns=status.st_mtime_ns)
        scan.found.append(Found(path, state))
    else:
        reason = "It is a folder, pipe, socket or device, expected a file."
        scan.failed.append((path, "picture_not_file", reason))
