"""`triptych import`: a collection from a file that `triptych export` wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from triptych.cli.command import add_collection_option, collection_folder
from triptych.errors import TriptychError
from triptych.retrieval.maintenance.archive import Archive
from triptych.retrieval.maintenance.portable import import_collection
from triptych.settings import Settings


class Import:
    help = "Make a collection from a file that `triptych export` wrote, once all hashes are right."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        add_collection_option(parser)

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = collection_folder(args, settings)
        with tqdm(desc="importing", unit=" items", disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            done = import_collection(args.file.expanduser(), folder, progress=progress)
        print(f"{done.count:,} items in {folder}")
        _say_which_model(done, folder, settings)
        return 0


def _say_which_model(done: Archive, folder: Path, settings: Settings) -> None:
    """Open it: only so it is known whether its model is here."""
    try:
        settings.open_collection(folder, must_exist=True).close()
    except TriptychError:
        print(
            f"triptych: to search it by words or pictures, the model {done.model} is needed: copy\n"
            f"the folder models/{done.fingerprint} from where it was made\n"
            f"to {settings.data / 'models'}",
            file=sys.stderr,
        )
