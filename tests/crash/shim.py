"""The library that fails, tears and writes down what a process does to its files (shim.c)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


class Mode(IntEnum):
    """What happens at the n-th call."""

    COUNT = 1
    KILL = 2  # the process ends before the call
    TEAR = 3  # half of a write is done, or all of another call, then the process ends
    NOSPACE_ONCE = 4
    NOSPACE = 5  # the disk is full from then on, but for what is deleted
    EIO = 6  # every call fails from then on


def available() -> bool:
    """Whether there is a C compiler."""
    return shutil.which("gcc") is not None


def build(folder: Path) -> Path:
    """Return the compiled library."""
    library = folder / "shim.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


class Shim:
    """The library, in the process that it was loaded into."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)

    def arm(self, folder: Path, mode: Mode, n: int = 0) -> None:
        """Watch `folder`; the n-th call from now on, from 1, is the one that fails."""
        path = os.fsencode(folder.resolve())
        self._library.shim_arm(ctypes.c_char_p(path), int(mode), ctypes.c_long(n))

    def disarm(self) -> None:
        """The disk is well again."""
        self._library.shim_disarm()

    def calls(self) -> int:
        """Return how many calls there were since `arm`."""
        return int(self._library.shim_calls())

    def fired(self) -> bool:
        """Whether the n-th call was reached."""
        return bool(self._library.shim_fired())

    def trace(self, path: Path) -> None:
        """Write down each call from now on; `disk.py` reads it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._library.shim_trace(os.open(path, flags, 0o600))

    def mark(self, text: str) -> None:
        """Put a line of the test's own between the calls of the trace."""
        self._library.shim_mark(ctypes.c_char_p(text.encode("utf-8")))
