"""`triptych index`: folders of pictures into a collection; the second time, only what changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from triptych.cli.command import add_collection_option, collection_folder, whole_number
from triptych.cli.search import printable
from triptych.encoders.pictures import PictureLimits
from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest import IngestReport, index_folder
from triptych.retrieval.rebuild import rebuilding, roots_of
from triptych.settings import Settings

_NAMED = 20  # unreadable pictures named on the screen; --report has them all


class Index:
    help = "Index folders of pictures. Again: only what is new, changed or gone."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
        add_collection_option(parser)
        parser.add_argument("--model", help="of a new collection, see: triptych models")
        parser.add_argument("--prune", action="store_true", help="drop what vanished, however much")
        parser.add_argument(
            "--rebuild",
            action="store_true",
            help="embed all of it again, with --model",
        )
        parser.add_argument(
            "--max-megapixels", type=whole_number, default=50, metavar="N",
            help="larger pictures are unreadable (50); a large JPEG is decoded smaller",
        )  # fmt: skip
        ending = parser.add_mutually_exclusive_group()
        ending.add_argument(
            "--strict", action="store_true", help="exit code 1 if a picture was unreadable"
        )
        ending.add_argument(
            "--keep-going", action="store_true", help="exit code 0 all the same (default)"
        )
        parser.add_argument(
            "--report", type=Path, metavar="FILE", help="write unreadable pictures as TSV"
        )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = collection_folder(args, settings)
        roots = [root.expanduser() for root in args.folders]
        if args.rebuild:
            roots = roots or roots_of(folder)
            model = args.model or settings.model
            fingerprint = settings.open_model(model).fingerprint
            with rebuilding(folder, fingerprint=fingerprint) as target:
                reports = _index(args, settings, target, roots, model=model)
        else:
            reports = _index(args, settings, folder, roots, model=args.model)
        failed = [failure for report in reports for failure in report.failed]
        if args.report is not None:
            rows = (f"{printable(path)}\t{code}\t{reason}\n" for path, code, reason in failed)
            args.report.write_text("".join(rows), "utf-8")
        return 1 if failed and args.strict else 0


def _index(
    args: argparse.Namespace,
    settings: Settings,
    folder: Path,
    roots: Sequence[Path],
    *,
    model: str | None,
) -> list[IngestReport]:
    if not roots:
        raise InvalidInput("Got no folder to index.", hint="For example: triptych index ~/Pictures")
    threads = settings.num_threads
    limits = PictureLimits(max_pixels=args.max_megapixels * 1_000_000)
    with settings.open_collection(folder, model=model, threads=threads) as collection:
        return [index_with_bar(collection, root, prune=args.prune, limits=limits) for root in roots]


def index_with_bar(
    collection: Collection,
    root: Path,
    *,
    prune: bool = False,
    limits: PictureLimits | None = None,
) -> IngestReport:
    """Index one folder, showing how far it is and, at the end, what came of it."""
    with tqdm(desc=f"indexing {printable(str(root))}", unit=" pictures", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = index_folder(collection, root, prune=prune, limits=limits, progress=progress)
    _print_report(report)
    return report


def _print_report(report: IngestReport) -> None:
    counts = {
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "unreadable": len(report.failed),
    }
    said = (
        ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "no pictures"
    )
    print(f"{said} in {report.seconds:.1f} s")
    for path, _, reason in report.failed[:_NAMED]:
        print(f"  unreadable: {printable(path)}: {reason}", file=sys.stderr)
    if len(report.failed) > _NAMED:
        more = len(report.failed) - _NAMED
        print(f"  ... and {more:,} more, all of them with --report FILE", file=sys.stderr)
