"""`triptych demo`: sample pictures (or your own), indexed, searched, drawn for a person."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from triptych.cli.index import index_with_bar
from triptych.cli.samples import fetch_samples
from triptych.cli.search import print_hits
from triptych.cli.sheets import atlas_of, sheet_row
from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.retrieval.display.sheet import contact_sheet
from triptych.retrieval.query import parse_query
from triptych.settings import Settings

_HITS = 6
# words; a picture; a picture plus words; this but not that. {} is the folder of pictures.
_SAMPLE_SEARCHES = [
    ["a musical instrument"],
    ["an apple"],
    ["a bird"],
    ["ein Fahrzeug"],
    ["{}/animals/birds/owl.png"],
    ["{}/food/fruit/lemon.png", "+", "an apple"],
    ["an animal", "-", "bird"],
]
# {} is one of the pictures.
_OWN_SEARCHES = [
    ["people outdoors"],
    ["a building"],
    ["something to eat"],
    ["{}"],
    ["{}", "+", "at night"],
    ["outdoors", "-", "people"],
]


class Demo:
    help = "Index sample pictures, or your own, search them, and draw a contact sheet."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "photos", nargs="?", type=Path, metavar="FOLDER", help="your own pictures"
        )
        parser.add_argument(
            "--into", type=Path, default=Path(".demo"), help="where all of it goes (default .demo)"
        )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        settings = replace(settings, data=args.into)  # the demo leaves nothing anywhere else
        own: Path | None = args.photos and args.photos.expanduser().resolve()
        photos = own or fetch_samples(args.into / "pictures", say=print).resolve()
        folder = settings.library().path("demo" if own is None else f"demo-{_slug(own)}")
        with settings.open_collection(folder, threads=settings.num_threads) as collection:
            index_with_bar(collection, photos)
            _search(collection, _searches(collection, photos, own=own is not None), args.into)
        named = str(folder) if folder.is_absolute() else f"./{folder}"  # with a / it is a path
        program, served = _program(), shlex.quote(str(args.into))
        print(f"In a browser:                {program} serve --data {served}")
        print(f'\nNow you:  {program} search -c {shlex.quote(named)} "a tree"')
        return 0


def _search(collection: Collection, searches: list[list[str]], into: Path) -> None:
    rows = []
    for tokens in searches:
        print(f"\n$ triptych search {shlex.join(tokens)}")
        query = parse_query(tokens)
        hits = collection.search(query, limit=_HITS)
        print_hits(hits)
        rows.append(sheet_row(collection, query, hits))
    sheet, picture_map = into / "contact-sheet.png", into / "map.png"
    contact_sheet(rows).save(sheet)
    atlas_of(collection).save(picture_map)
    print(f"\nWhat was found, to look at:  {sheet}\nThe collection as a map:     {picture_map}")


def _searches(collection: Collection, photos: Path, *, own: bool) -> list[list[str]]:
    """Return the searches of the demo, with a picture that is there."""
    ids = sorted(collection.files())
    if not ids:
        raise InvalidInput(f"No picture in {photos} could be indexed.")
    searches = _OWN_SEARCHES if own else _SAMPLE_SEARCHES
    example = ids[len(ids) // 2] if own else str(photos)
    filled = [[token.format(example) for token in tokens] for tokens in searches]
    there = [tokens for tokens in filled if _there(tokens[0])]
    if len(there) < len(filled):  # the few pictures of the fallback have other names
        there += [[ids[0]], [ids[0], "+", "drawing"]]
    return there


def _program() -> str:
    """Return what the shell knows this program by: `make demo` starts it out of its .venv."""
    if shutil.which("triptych"):
        return "triptych"
    if Path(sys.argv[0]).stem == "__main__":
        return f"{shlex.quote(sys.executable)} -m triptych"
    return shlex.quote(sys.argv[0])


def _there(token: str) -> bool:
    return not token.startswith("/") or Path(token).exists()


def _slug(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
