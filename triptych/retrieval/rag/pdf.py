"""PDF, read in a process of its own: a file that hangs, crashes or eats memory costs only itself.

A picture's decoder asks for its bytes bit by bit and can be stopped in between (see
`encoders/pictures/guard.py`); PDFium works a page in one call, which only the kernel can stop.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from triptych.retrieval.rag import pdf_child
from triptych.retrieval.rag.document import DocumentError, DocumentLimits, Note, Page
from triptych.retrieval.rag.pdf_wire import unpacked

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {pdf_child.__name__} import main; main()"
)
_START = 10.0  # seconds by the clock until the child is there, and
_PATIENCE = 5.0  # so many for each of the processor, which others want too
_CHUNK = 2**20


def read_pdf(
    data: bytes,
    limits: DocumentLimits,
    note: Callable[[Note], object],
    *,
    only: int | None = None,
) -> Iterator[Page]:
    """Yield the pages of a PDF file, one at a time, each with its text and pictures.

    A page without text is drawn, and is a picture. Raises DocumentError: document_encrypted,
    document_damaged, document_too_long, document_too_slow, document_too_large, document_crashed.
    """
    with _child(limits, only) as child:
        incoming = _Incoming(child, limits)
        incoming.give(data)
        while True:
            kind, said = incoming.next()
            if kind == "page":
                yield said
            elif kind == "note":
                note(Note(code=said[0], reason=said[1]))
            elif kind == "error":
                raise DocumentError(said[0], said[1], hint=said[2])
            elif kind == "memory":
                raise _too_large(limits)
            else:
                return


@contextmanager
def _child(limits: DocumentLimits, only: int | None) -> Iterator[subprocess.Popen[bytes]]:
    # the caller's own search path, and nothing of the folder that it stands in
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path)]
    with subprocess.Popen(  # noqa: S603
        [*command, json.dumps([asdict(limits), only])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


class _Incoming:
    """Messages of a child, waited for so long and no longer; what we do in between is free."""

    def __init__(self, child: subprocess.Popen[bytes], limits: DocumentLimits) -> None:
        self._child, self._limits = child, limits
        self._left = _START + limits.max_seconds * _PATIENCE
        self._buffer = bytearray()
        self._poll = select.poll()
        assert child.stdout is not None
        self._stdout = child.stdout
        self._poll.register(child.stdout, select.POLLIN)

    def give(self, data: bytes) -> None:
        """Hand over the file, or as much of it as the child lives to take."""
        assert self._child.stdin is not None
        rest = memoryview(data)
        with suppress(BrokenPipeError):
            while rest:
                rest = rest[self._child.stdin.write(rest[:_CHUNK]) :]
        self._child.stdin.close()

    def next(self) -> tuple[str, Any]:
        """Return the next message; raises DocumentError where none comes any more."""
        try:
            return unpacked(self._read)
        except DocumentError:
            raise
        except (ValueError, TypeError):
            raise _crashed(self._limits) from None

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _more(self) -> bytes:
        started = time.monotonic()
        ready = self._poll.poll(max(self._left, 0.0) * 1_000)
        self._left -= time.monotonic() - started
        data = self._stdout.read(_CHUNK) if ready else None
        if data:
            return data
        if data is None or self._child.wait() == -signal.SIGPROF:
            raise _too_slow(self._limits)
        raise _crashed(self._limits)


def _too_slow(limits: DocumentLimits) -> DocumentError:
    return DocumentError(
        "document_too_slow",
        f"It takes more than {limits.max_seconds:g} s of the processor to read.",
        hint="Split it, print it to a PDF anew, or raise DocumentLimits.max_seconds.",
    )


def _too_large(limits: DocumentLimits) -> DocumentError:
    return DocumentError(
        "document_too_large",
        f"It takes more than {limits.max_memory >> 20:,} MB of memory to read.",
        hint="Split it, or raise DocumentLimits.max_memory.",
    )


def _crashed(limits: DocumentLimits) -> DocumentError:
    return DocumentError(
        "document_crashed",
        f"PDFium crashed over it, or ran out of its {limits.max_memory >> 20:,} MB of memory.",
        hint="Print it to a PDF anew, or leave it out.",
    )
