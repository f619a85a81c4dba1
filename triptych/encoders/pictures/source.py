"""The encoded bytes behind a path or a data URI."""

from __future__ import annotations

import base64
import errno
import os
import re
import stat
from pathlib import Path

from triptych.errors import PictureError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DATA_URI = re.compile(r"data:(?P<mime>[^;,]*)(?P<parameters>(?:;[^;,]*)*),", re.IGNORECASE)


def read_named(source: str | Path, *, max_bytes: int) -> bytes:
    """Return the bytes of a regular file or a data URI.

    Raises PictureError: picture_url, picture_missing, picture_not_file, picture_too_large,
    picture_unreadable, picture_data_uri.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_data_uri(source, max_bytes=max_bytes)
    if isinstance(source, str) and (url := _URL.match(source)):
        raise PictureError(
            "picture_url",
            f"A picture is not fetched from an address, got one that begins with {url[1]}://.",
            hint="Download it, and give its path or its bytes.",
        )
    return _from_file(os.fspath(source), max_bytes=max_bytes)


def label(source: object) -> str:
    """Return how a message names `source`: a shortened file name, or 'The picture'."""
    if isinstance(source, Path) or (isinstance(source, str) and source[:5].lower() != "data:"):
        name = os.path.basename(os.fspath(source)) or os.fspath(source)
        # repr escapes control characters and the surrogates of names that are not UTF-8
        return repr(name if len(name) <= 120 else f"{name[:57]}...{name[-57:]}")
    return "The picture"


def too_many_bytes(name: str, *, num_bytes: int, max_bytes: int) -> PictureError:
    """Return the error for a file that is larger than the limit."""
    return PictureError(
        "picture_too_large",
        f"{name} has {num_bytes:,} bytes, expected at most {max_bytes:,}.",
        hint="Make it smaller, or raise PictureLimits.max_bytes.",
    )


def _from_data_uri(source: str, *, max_bytes: int) -> bytes:
    head = _DATA_URI.match(source[:512])
    if head is None or "base64" not in head["parameters"].lower().split(";"):
        raise _bad_data_uri("is not of the form data:image/...;base64,...")
    mime = head["mime"].strip().lower()
    if mime and not mime.startswith("image/") and mime != "application/octet-stream":
        raise _bad_data_uri("does not say that it is a picture (image/...)")
    num_bytes = (len(source) - head.end()) * 3 // 4
    if num_bytes > max_bytes + 2:
        raise too_many_bytes("The data URI", num_bytes=num_bytes, max_bytes=max_bytes)
    strict = "does not hold strict base64 (alphabet, padding, no blanks)"
    if (len(source) - head.end()) % 4:  # Python lets superfluous padding pass
        raise _bad_data_uri(strict)
    try:
        return base64.b64decode(source[head.end() :], validate=True)
    except ValueError:
        raise _bad_data_uri(strict) from None


def _bad_data_uri(why: str) -> PictureError:
    return PictureError("picture_data_uri", f"The data URI {why}.")


def _from_file(path: str, *, max_bytes: int) -> bytes:
    if "\0" in path:
        raise PictureError("picture_missing", f"There is no file {label(path)}.")
    try:
        if path.startswith("~") and not os.path.lexists(path):
            path = os.path.expanduser(path)
        return _read_regular(path, max_bytes=max_bytes)
    except OSError as error:
        raise _file_error(path, error) from None


def _read_regular(path: str, *, max_bytes: int) -> bytes:
    # stat before open: opening a device can act on it, opening a FIFO can hang
    _check_regular(path, os.stat(path).st_mode)
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(path, status.st_mode)
        if status.st_size > max_bytes:
            raise too_many_bytes(label(path), num_bytes=status.st_size, max_bytes=max_bytes)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # it grew, or it is one of the files that claim to be empty
        raise too_many_bytes(label(path), num_bytes=len(data), max_bytes=max_bytes)
    return data


def _check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise PictureError("picture_not_file", f"{label(path)} is {kind}, expected a file.")


def _file_error(path: str, error: OSError) -> PictureError:
    name = label(path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return PictureError("picture_missing", f"There is no file {name}.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PictureError("picture_unreadable", f"{name} may not be read by this user.")
    reason = os.strerror(error.errno) if error.errno else "input/output error"
    return PictureError("picture_unreadable", f"{name} cannot be read: {reason}.")
