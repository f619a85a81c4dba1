"""What came of a run and what was left out: on the screen, and in the file of `--report`."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.cli.search import printable
from triptych.errors import InvalidInput, NotAvailable
from triptych.retrieval.ingest.offers import Failure

if TYPE_CHECKING:
    from triptych.retrieval.ingest.run import IngestReport
    from triptych.retrieval.rag.intake import DocumentReport

_COUNTED = {
    "added": "added",
    "updated": "updated",
    "moved": "moved",
    "unchanged": "unchanged",
    "removed": "removed",
    "left out": "failed",
}
_NAMED = 20  # on the screen; --report has them all
_KINDS = 10  # of files that were passed over
_LONGEST = 80  # characters of an id, which may have 10,000
_MAX_LINE = 1_000_000  # bytes
_FIELDS = ("source", "place", "id", "code", "reason")


@contextmanager
def failure_log(
    path: Path | None, sources: Iterable[str] = ()
) -> Iterator[Callable[[Failure], None] | None]:
    """Yield what writes a failure to the file, at once: a run that is killed leaves its report.

    Raises InvalidInput for an ending other than .jsonl and .tsv and for a file that is no report,
    which it would overwrite, NotAvailable where the file cannot be written.
    """
    if path is None:
        yield None
        return
    kind = path.suffix.lower()
    if kind not in (".jsonl", ".tsv"):
        raise InvalidInput(
            f"The report {path} ends in {kind or 'nothing'}, expected .jsonl or .tsv."
        )
    path = path.expanduser()
    if any(path.exists() and os.path.exists(one) and path.samefile(one) for one in sources):
        raise InvalidInput(
            f"The report {path} is what is to be indexed.", hint="Name another file."
        )
    try:
        if path.is_file() and not _is_report(path, kind):
            raise InvalidInput(
                f"{path} is there already, and is not a report of ours.", hint="Name another file."
            )
        file = path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise NotAvailable(f"The report {path} cannot be written: {reason}.") from None
    with file:
        if kind == ".tsv":
            print(*_FIELDS, sep="\t", file=file)

        def write(failure: Failure) -> None:
            values = asdict(failure)
            if kind == ".jsonl":
                print(json.dumps(values), file=file)
            else:
                print(*(printable(values[name] or "") for name in _FIELDS), sep="\t", file=file)

        yield write


def _is_report(path: Path, kind: str) -> bool:
    with path.open("rb") as file:
        first = file.readline(_MAX_LINE)
    if kind == ".tsv":
        return first in (b"", "\t".join(_FIELDS).encode() + b"\n")
    try:
        return not first or json.loads(first).keys() == {*_FIELDS}
    except (ValueError, AttributeError):
        return False


def _in_order(failure: Failure) -> list[tuple[int, str]]:
    """Line 9 before line 10: what is found in a row comes before what its picture says."""
    parts = re.split(r"([0-9]+)", failure.place)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def print_failures(failures: Sequence[Failure], *, count: int) -> None:
    """Name the first of `count` failures on standard error."""
    for failure in sorted(failures, key=_in_order)[:_NAMED]:
        id = f" (id {_short(failure.id)})" if failure.id is not None else ""
        print(f"  left out: {printable(failure.place)}{id}: {failure.reason}", file=sys.stderr)
    more = count - min(len(failures), _NAMED)
    if more:
        print(f"  ... and {more:,} more, all of them with --report FILE", file=sys.stderr)


def print_passed(passed: Counter[str]) -> None:
    """Say on standard error how many files of other kinds were passed over."""
    if passed:
        often = sorted(passed.items(), key=lambda one: (-one[1], one[0]))
        kinds = [f"{count:,} {printable(ending) or 'without'}" for ending, count in often]
        more = f" and {len(kinds) - _KINDS:,} kinds more" * (len(kinds) > _KINDS)
        listed = ", ".join(kinds[:_KINDS]) + more
        print(f"  passed over, by their ending: {listed}", file=sys.stderr)


def _short(id: str) -> str:
    return repr(id) if len(id) <= _LONGEST else f"{id[:_LONGEST]!r}..."


def counted(report: IngestReport | DocumentReport) -> str:
    """Return the counts that are not 0, like `812 added, 3 left out`."""
    counts = {shown: getattr(report, name, 0) for shown, name in _COUNTED.items()}
    return ", ".join(f"{count:,} {shown}" for shown, count in counts.items() if count)
