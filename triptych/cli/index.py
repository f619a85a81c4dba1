"""`triptych index`: folders, pictures, manifests and tars; the second time, only what changed."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from triptych.cli.command import add_collection_option, collection_folder, positive_number
from triptych.cli.documents import index_documents_with_bar
from triptych.cli.failures import counted, failure_log, print_failures, print_passed
from triptych.cli.search import printable
from triptych.encoders.pictures.picture import PictureLimits
from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.columns import Wanted
from triptych.retrieval.ingest.globs import is_pattern
from triptych.retrieval.ingest.run import IngestOptions, IngestReport, check_source, index_source
from triptych.retrieval.ingest.sources import Folder, Source, sources_of
from triptych.retrieval.rag.intake import IntakeOptions, check_readers
from triptych.settings import Settings

_LANES = 8  # each holds some decoded pictures
_TITLE = 40  # so that the bar keeps some room
_SUMMED = ("added", "updated", "moved", "unchanged", "removed", "failed", "seconds")

SOURCES = """\
a SOURCE is
  ~/Pictures              a folder: new and changed pictures come in, vanished ones are dropped
  '~/Pictures/**/*.jpg'   a pattern, in quotes; or pictures named one by one
  rows.jsonl .csv .tsv .parquet
                          a manifest, one item per row: id, image (a path relative to the
                          manifest, or a data URI; in Parquet bytes too), text, uri, metadata;
                          all other columns are metadata
  shard-000.tar           a WebDataset: key.jpg .png .webp, key.txt .json .cls
with --documents, a SOURCE is a folder or file of .md .html .pdf .txt, see: triptych context --help
"""


class Index:
    help = "Index folders, pictures, manifests and tars. Again: only what is new or changed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = SOURCES
        parser.add_argument("sources", nargs="*", metavar="SOURCE")
        add_collection_option(parser)
        parser.add_argument("--model", help="of a new collection, see: triptych models")
        for part in ("id", "image", "text"):
            parser.add_argument(
                f"--{part}-column", metavar="NAME",
                help='of a manifest, where no guess finds it; "" for none',
            )  # fmt: skip
        parser.add_argument(
            "--documents", action="store_true",
            help="take Markdown, HTML, PDF and plain text, cut into passages, with their pictures",
        )  # fmt: skip
        parser.add_argument(
            "--prune", action="store_true", help="drop what vanished from a folder, however much"
        )
        parser.add_argument(
            "--max-megapixels", type=positive_number, default=50, metavar="N",
            help="larger pictures are left out (50); a large JPEG is decoded smaller",
        )  # fmt: skip
        ending = parser.add_mutually_exclusive_group()
        ending.add_argument(
            "--strict", action="store_true", help="exit code 1 if anything was left out"
        )
        ending.add_argument(
            "--keep-going", action="store_true", help="exit code 0 all the same (default)"
        )
        parser.add_argument(
            "--report",
            type=Path,
            metavar="FILE",
            help="write all that was left out: .jsonl or .tsv",
        )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = collection_folder(args, settings)
        wanted = Wanted(id=args.id_column, image=args.image_column, text=args.text_column)
        if not all(args.sources) or not args.sources:  # "" would be the folder one is in
            raise InvalidInput(
                f"Got {'an empty name' if args.sources else 'nothing'} to index.",
                hint="For example: triptych index ~/Pictures",
            )
        sources = sources_of([] if args.documents else args.sources, wanted)
        if Collection.peek(folder) is None:
            _check_there(args.sources)
        if args.documents:
            check_readers(args.sources)  # now: else it is noticed in a collection that is new
        if args.prune and sources and not any(isinstance(one, Folder) for one in sources):
            print("triptych: only a folder drops what vanished, --prune does nothing here.",
                  file=sys.stderr)  # fmt: skip
        with failure_log(args.report, [source.path for source in sources]) as log:
            if args.documents:
                intake = IntakeOptions(prune=args.prune, on_failure=log)
                with settings.open_collection(
                    folder, model=args.model, threads=settings.num_threads
                ) as collection:
                    failed = index_documents_with_bar(collection, args.sources, intake)
                return 1 if failed and args.strict else 0
            options = IngestOptions(
                prune=args.prune,
                lanes=_lanes(settings),
                limits=PictureLimits(max_pixels=args.max_megapixels * 1_000_000),
                on_failure=log,
            )
            total = _index(settings, folder, sources, options, model=args.model)
            _print_gone(total.gone, args.collection)
            failed = total.failed
        return 1 if failed and args.strict else 0


def _check_there(names: Sequence[str]) -> None:
    """Refuse a name that is mistyped before a collection is made for it."""
    for name in names:
        if not is_pattern(name) and not os.path.exists(os.path.expanduser(name)):
            raise NotFound(f"There is no folder or file {name!r}.")


def _index(
    settings: Settings,
    folder: Path,
    sources: Sequence[Source],
    options: IngestOptions,
    *,
    model: str | None,
) -> IngestReport:
    """Index all sources, one after the other; return the sum of what came of them."""
    # lanes keep the cores busy: threads of the model's own would get in each other's way
    threads = max(1, settings.num_threads // _LANES)
    total = IngestReport()
    with settings.open_collection(folder, model=model, threads=threads) as collection:
        for source in sources:
            check_source(collection, source, options)
        for source in sources:
            report = index_with_bar(collection, source, options, titled=len(sources) > 1)
            for name in _SUMMED:
                setattr(total, name, getattr(total, name) + getattr(report, name))
            if isinstance(source, Folder):
                total.gone = report.gone  # the last one knows what was dropped before it
        collection.optimize()  # the next search finds a ready index
    if len(sources) > 1:
        print(f"in all: {summary(total)}")
    return total


def _print_gone(gone: dict[str, int], collection: str) -> None:
    named = "" if collection == "default" else f" -c {shlex.quote(collection)}"
    for folder, count in gone.items():
        pictures = f"{count:,} picture{'s' * (count != 1)}"
        print(
            f"triptych: The folder {printable(folder)} is gone, and {pictures} indexed from it "
            "will still be found. If it was moved or deleted, drop them:\n"
            f"  triptych index --prune {shlex.quote(printable(folder))}{named}",
            file=sys.stderr,
        )


def _lanes(settings: Settings) -> int:
    """One for each core, and one more: some lane always waits for the disk."""
    return min(settings.num_threads, _LANES) + 1


def index_with_bar(
    collection: Collection,
    source: Source | Path,
    options: IngestOptions | None = None,
    *,
    titled: bool = False,
) -> IngestReport:
    """Index one source, showing how far it is and, at the end, what came of it."""
    source = Folder(str(source)) if isinstance(source, Path) else source
    title = printable(source.path)
    note = getattr(source, "note", None)
    if note:
        print(f"{title}: {printable(note)}", file=sys.stderr)
    short = title if len(title) <= _TITLE else f"...{title[3 - _TITLE :]}"
    with tqdm(desc=f"indexing {short}", unit=" items", disable=None) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            if not done or not bar.n:
                bar.initial = bar.n = done  # what a folder's run skips at once has no rate
            bar.update(done - bar.n)

        report = index_source(
            collection, source, replace(options or IngestOptions(), progress=progress)
        )
    print(f"{title}: {summary(report)}" if titled else summary(report))
    print_failures(report.failures, count=report.failed)
    if not report.done:
        print_passed(report.passed)
    return report


def summary(report: IngestReport) -> str:
    """Return a line like `812 added, 3 left out in 10.0 s (81 a second)`."""
    written = report.added + report.updated
    rate = f" ({written / report.seconds:,.0f} a second)" if written and report.seconds else ""
    return f"{counted(report) or 'no items'} in {report.seconds:.1f} s{rate}"
