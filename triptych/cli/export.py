"""`triptych export`: a collection as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from triptych.cli.command import add_collection_option, existing_folder
from triptych.retrieval.folder import open_store
from triptych.retrieval.maintenance.portable import export_collection
from triptych.settings import Settings


class Export:
    help = "Write a collection to one file: a tar of Parquet parts, with the hash of each."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        add_collection_option(parser)
        parser.add_argument("--force", action="store_true", help="replace FILE where it exists")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        store = open_store(existing_folder(args, settings))
        try:
            with tqdm(desc="exporting", unit=" items", disable=None) as bar:

                def progress(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                done = export_collection(
                    store, args.file.expanduser(), replace=args.force, progress=progress
                )
        finally:
            store.close()
        size = args.file.expanduser().stat().st_size
        print(f"{done.count:,} items in {args.file}, {size / 2**20:,.1f} MB")
        print(f"made with the model {done.model} ({done.fingerprint[:12]}), which is not in it")
        return 0
