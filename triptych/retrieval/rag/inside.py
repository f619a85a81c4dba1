"""What a document may name: nothing that is not in its folder, and nothing over a network."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote

from triptych.retrieval.rag.document import DocumentError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:|//|\\\\")
_SHOWN = 120


def named_file(target: str, *, beside: Path, root: Path) -> Path:
    """Return the file that `target`, written in the document `beside`, names below `root`.

    Raises DocumentError: picture_url for an address, picture_outside for what is elsewhere, be it
    by an absolute path, by `..` or by a symbolic link. Nothing is opened.
    """
    if _SCHEME.match(target):
        raise DocumentError(
            "picture_url", f"It names the picture {shown(target)}; an address is never fetched."
        )
    path = _path_of(target)
    if not path or path.startswith(("/", "~")) or "\0" in path:
        raise _outside(target)
    real, top = os.path.realpath(beside.parent / path), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top or real == top:
        raise _outside(target)
    return Path(real)


def linked_name(target: str, *, beside: Path, root: Path) -> str | None:
    """Return the name `<file>#<anchor>` of what a link leads to, None for what is not in `root`.

    Only names are compared: whether there is such a file plays no part.
    """
    if _SCHEME.match(target):
        return None
    path, anchor = _path_of(target), unquote(target.partition("#")[2])
    if path.startswith("/") or "\0" in path:
        return None
    file = os.path.normpath(beside.parent / path) if path else str(beside)
    if not file.startswith(f"{root}/"):
        return None
    return f"{file}#{anchor}" if anchor else file


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """Return the bytes of a regular file that is no link.

    Raises DocumentError: document_missing, document_link, document_not_file, document_too_large,
    document_unreadable.
    """
    try:
        # without waiting: opening a pipe would
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(error) from None
    with os.fdopen(file, "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError("document_not_file", "It is no regular file.")
        try:
            data = source.read(max_bytes + 1)
        except OSError as error:
            raise _cannot_open(error) from None
    if len(data) > max_bytes:
        raise DocumentError(
            "document_too_large",
            f"It has more than {max_bytes:,} bytes.",
            hint="Split it, or raise DocumentLimits.max_bytes.",
        )
    return data


def shown(target: str) -> str:
    """Return how a message names an address: shortened, with nothing that moves a cursor."""
    return repr(target if len(target) <= _SHOWN else f"{target[:_SHOWN]}...")


def _path_of(target: str) -> str:
    return unquote(re.split(r"[?#]", target, maxsplit=1)[0])


def _outside(target: str) -> DocumentError:
    return DocumentError(
        "picture_outside",
        f"It names the picture {shown(target)}, which is not in its folder.",
        hint="Nothing outside of the folder is read: copy the picture into it.",
    )


def _cannot_open(error: OSError) -> DocumentError:
    if error.errno == errno.ELOOP:
        return DocumentError("document_link", "Links are not followed.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DocumentError("document_missing", "The file is gone.")
    reason = os.strerror(error.errno) if error.errno else "input/output error"
    return DocumentError("document_unreadable", f"It cannot be read: {reason}.")
