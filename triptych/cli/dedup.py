"""`triptych dedup`: which items are the same, and which nearly; deletes nothing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from triptych.cli.command import add_collection_option, existing_folder
from triptych.cli.search import printable
from triptych.index.snapshot import Snapshots
from triptych.retrieval.folder import INDEX, open_store
from triptych.retrieval.live import LiveIndex
from triptych.retrieval.maintenance.duplicates import Group, duplicates, similar
from triptych.settings import Settings

_THRESHOLD = 0.97


class Dedup:
    help = "Show exact duplicates, and apart from them what is similar. Nothing is deleted."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_collection_option(parser)
        parser.add_argument(
            "--similar", nargs="?", type=float, const=_THRESHOLD, metavar="COSINE",
            help=f"also what is alike at a cosine of {_THRESHOLD}, or of this, or higher",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = existing_folder(args, settings)
        store = open_store(folder)
        try:
            exact = duplicates(store)
            alike = None
            if args.similar is not None:
                live = LiveIndex(store, Snapshots(folder / INDEX))
                alike = similar(store, live, args.similar)
        finally:
            store.close()
        if args.json:
            said = {"exact": [asdict(group) for group in exact]}
            if alike is not None:
                said["similar"] = [asdict(group) for group in alike]
            print(json.dumps(said, indent=1))
            return 0
        _print("exact duplicates", exact, scored=False)
        if alike is not None:
            print()
            _print(f"similar, cosine {args.similar:g} or higher", alike, scored=True)
        return 0


def _print(title: str, groups: Sequence[Group], *, scored: bool) -> None:
    num = sum(len(group.members) for group in groups)
    said = f"{len(groups):,} of {num:,} items ({num - len(groups):,} to spare)"
    print(f"{title}, in groups: {said if groups else 'none'}")
    for group in groups:
        print()
        for member in group.members:
            where = member.uri or member.id
            gone = where.startswith("/") and not os.path.lexists(where)
            name = (
                printable(where) + "  (gone)" * gone
            )  # else the only one that is there is deleted
            print(f"  {member.score:.3f}  {name}" if scored else f"  {name}")
