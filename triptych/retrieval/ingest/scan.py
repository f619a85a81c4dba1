"""What pictures a folder holds, without opening one."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from triptych.index.sqlite.records import FileState

# what is read, and what is often met: that one is named as unreadable, with the reason
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib",
        ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".avif",
        ".heic", ".heif", ".svg", ".jxl", ".jp2", ".psd", ".eps", ".tga",
        ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a picture; `path` is absolute and may hold bytes that are no UTF-8."""

    path: str
    state: FileState


@dataclass(slots=True)
class Scan:
    """All candidates by path, and what was left out on the way."""

    found: list[Found] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)  # path, code, reason
    unlisted: list[str] = field(default_factory=list)  # folders whose content is unknown
    passed: Counter[str] = field(default_factory=Counter)  # files of other kinds, by their ending


def scan_folder(root: str, *, suffixes: Collection[str] = SUFFIXES) -> Scan:
    """Return the files so named below `root`, sorted; links are never followed: nothing escapes.

    Hidden files and folders are left out; links and special files are named as failed.
    """
    scan = Scan()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        _look(entry, root, scan, folders, suffixes)
        except OSError as error:
            scan.unlisted.append(folder)
            reason = f"The folder cannot be listed: {os.strerror(error.errno or 0)}."
            scan.failed.append((folder, "folder_unreadable", reason))
    scan.found.sort(key=lambda found: found.path)
    return scan


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is inside of `folder`, by name."""
    return path.startswith(folder.rstrip("/") + "/")


def _look(
    entry: os.DirEntry[str],
    root: str,
    scan: Scan,
    folders: list[str],
    suffixes: Collection[str],
) -> None:
    ending = os.path.splitext(entry.name)[1].lower()
    is_wanted = ending in suffixes
    if entry.is_symlink():
        if is_wanted or entry.is_dir():
            scan.failed.append((entry.path, "link", "Links are not followed."))
    elif entry.is_dir(follow_symlinks=False):
        folders.append(entry.path)
    elif is_wanted:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # gone since it was listed
            return
        if stat.S_ISREG(status.st_mode):
            state = FileState(root=root, size=status.st_size, mtime_ns=status.st_mtime_ns)
            scan.found.append(Found(entry.path, state))
        else:
            reason = "It is a pipe, socket or device, expected a file."
            scan.failed.append((entry.path, "picture_not_file", reason))
    else:
        scan.passed[ending] += 1
