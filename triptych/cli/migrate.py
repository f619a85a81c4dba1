"""`triptych migrate`: another model for a collection, which answers throughout."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from triptych.cli.command import add_collection_option, collection_folder, positive_number
from triptych.cli.search import printable
from triptych.encoders.base import EmbeddingModel
from triptych.encoders.pictures.picture import PictureLimits
from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.retrieval.maintenance.migrate import (
    MigrateOptions,
    MigrateReport,
    drop_old,
    migrate,
    previous,
)
from triptych.settings import Settings

_SHOWN = 20


class Migrate:
    help = "Change the model of a collection. It answers and can be written to throughout."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_collection_option(parser)
        target = parser.add_mutually_exclusive_group()
        target.add_argument("--model", metavar="NAME", help="the new one, see: triptych models")
        target.add_argument(
            "--back", action="store_true", help="to the model that was searched before"
        )
        parser.add_argument(
            "--drop-old", action="store_true",
            help="delete the vectors of all other models in the end: no way back, less disk",
        )  # fmt: skip
        parser.add_argument(
            "--from-thumbnails", action="store_true",
            help="where a picture is gone or another one now, embed its thumbnail: less exact",
        )  # fmt: skip
        parser.add_argument(
            "--drop-missing", action="store_true",
            help="drop items that cannot be embedded again",
        )  # fmt: skip
        parser.add_argument(
            "--drop-tokens", action="store_true",
            help="keep no token states of this model, also where it is searched already: no more "
            "--rerank, less disk",
        )  # fmt: skip
        parser.add_argument(
            "--max-megapixels", type=positive_number, default=50, metavar="N",
            help="as when it was indexed (50)",
        )  # fmt: skip

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        if not (args.model or args.back or args.drop_old):
            raise InvalidInput(
                "Got no model to migrate to.", hint="For example: triptych migrate --model default"
            )
        folder = collection_folder(args, settings)
        threads = settings.num_threads
        with settings.open_collection(folder, threads=threads, must_exist=True) as collection:
            if args.model or args.back:
                model = self._model(args, settings, collection)
                _print(_migrate_with_bar(collection, model, args))
            if args.drop_old:
                dropped = drop_old(collection)
                print(f"the vectors of {dropped} other model{'s' * (dropped != 1)} are deleted")
        return 0

    def _model(
        self, args: argparse.Namespace, settings: Settings, collection: Collection
    ) -> EmbeddingModel:
        if args.back:
            return settings.model_of(previous(collection), threads=settings.num_threads)
        model = settings.open_model(args.model, threads=settings.num_threads)
        settings.keep(model)  # before anybody may have to open it
        return model


def _migrate_with_bar(
    collection: Collection, model: EmbeddingModel, args: argparse.Namespace
) -> MigrateReport:
    with tqdm(desc=f"migrating to {printable(model.name)}", unit=" items", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        options = MigrateOptions(
            from_thumbnails=args.from_thumbnails,
            drop_missing=args.drop_missing,
            drop_tokens=args.drop_tokens,
            limits=PictureLimits(max_pixels=args.max_megapixels * 1_000_000),
            progress=progress,
        )
        return migrate(collection, model, options)


def _print(report: MigrateReport) -> None:
    if report.before == report.after and not report.embedded:
        print(f"{printable(report.after)} is searched already")
        if num := report.without_tokens:
            print(f"the token states of {num:,} item{'s' * (num != 1)} are deleted")
        return
    rate = f" ({report.embedded / report.seconds:,.0f} a second)" if report.embedded else ""
    print(
        f"{printable(report.before)} -> {printable(report.after)}: "
        f"{report.embedded:,} embedded in {report.seconds:.1f} s{rate}"
    )
    if report.from_thumbnails:
        print(f"{report.from_thumbnails:,} of them from thumbnails, which is less exact")
    if report.dropped:
        print(f"{len(report.dropped):,} dropped:", file=sys.stderr)
        for lost in report.dropped[:_SHOWN]:
            print(f"  {lost.code}  {printable(lost.id)}", file=sys.stderr)
        if len(report.dropped) > _SHOWN:
            print(f"  and {len(report.dropped) - _SHOWN:,} more", file=sys.stderr)
