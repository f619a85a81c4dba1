"""The process that reads one PDF, from its standard input to its standard output, within limits.

The kernel stops it: by SIGPROF when its seconds are over, by refusing memory when it has had its
share. It has inherited no other file, and can write none.
"""

from __future__ import annotations

import json
import resource
import signal
import sys

from triptych.retrieval.rag.document import DocumentError, DocumentLimits, Note
from triptych.retrieval.rag.pdf_pages import pages_of_pdf
from triptych.retrieval.rag.pdf_wire import packed


def main() -> None:
    """Read limits and page number from the last argument, a PDF from the input; answer messages."""
    given, only = json.loads(sys.argv[-1])
    limits = DocumentLimits(**given)
    _confine(limits)
    out = sys.stdout.buffer

    def note(said: Note) -> None:
        out.write(packed("note", [said.code, said.reason]))

    try:
        for page in pages_of_pdf(sys.stdin.buffer.read(), limits, note, only=only):
            out.write(packed("page", page))
            out.flush()
        out.write(packed("end"))
    except DocumentError as error:
        out.write(packed("error", [error.code, error.message, error.hint]))
    except MemoryError:
        out.write(packed("memory"))
    out.flush()


def _confine(limits: DocumentLimits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.max_memory, limits.max_memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, limits.max_seconds)
