"""`triptych index --documents`: what is said while documents are taken in, and after."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from triptych.cli.failures import counted, print_failures, print_passed
from triptych.cli.search import printable
from triptych.retrieval.rag.intake import (
    DocumentReport,
    IntakeOptions,
    check_there,
    index_documents,
)
from triptych.retrieval.rag.searchable import Searchable

_NAMED = 20


def index_documents_with_bar(
    collection: Searchable, sources: Sequence[str], options: IntakeOptions
) -> int:
    """Take in all sources, one after the other; return how many documents were left out."""
    failed = 0
    check_there(collection, sources, options)
    for source in sources:
        with tqdm(desc="reading", unit=" documents", disable=None) as bar:

            def progress(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            report = index_documents(collection, source, replace(options, progress=progress))
        print(f"{printable(source)}: {_summary(report)}")
        print_failures(report.failures, count=report.failed)
        print_passed(report.passed)
        for note in report.notes[:_NAMED]:
            print(f"  note: {printable(note.place)}: {printable(note.reason)}", file=sys.stderr)
        if len(report.notes) > _NAMED:
            print(f"  ... and {len(report.notes) - _NAMED:,} notes more", file=sys.stderr)
        failed += report.failed
    return failed


def _summary(report: DocumentReport) -> str:
    made = (
        f": {report.passages:,} passages, {report.pictures:,} pictures" if report.passages else ""
    )
    found = report.added + report.updated + report.unchanged
    nothing = "" if found or report.removed else "no documents (.md .html .pdf .txt)"
    said = ", ".join(filter(None, (nothing, counted(report))))
    return f"{said} in {report.seconds:.1f} s{made}"
