"""`triptych search`: words, pictures, stored ids, weights and minus terms in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path

from triptych.cli.command import (
    add_collection_option,
    collection_folder,
    json_text,
    whole_number,
)
from triptych.cli.sheets import save_sheet, sheet_file, sheet_row
from triptych.filters import Exists, parse_filter
from triptych.retrieval.collection import Collection
from triptych.retrieval.display.sheet import contact_sheet
from triptych.retrieval.ingest.scan import SUFFIXES
from triptych.retrieval.languages import unserved_script
from triptych.retrieval.query import parse_query
from triptych.retrieval.unmatched import unmatched
from triptych.settings import Settings
from triptych.types import Hit, Query

GRAMMAR = """\
a query is terms joined by + and - (whole arguments):
  a dog on a beach        words
  ./photo.jpg  ~/a.png    a picture (or image:photo.jpg)
  id:/photos/1.jpg        a stored item
  2:snow                  any term with a weight
  text:+                  escapes: what follows text: is words
  animal - dog            take away; the sign stands alone, -dog is an option
"""

_EXCERPT = 80


class Search:
    help = "Find by words, pictures, stored ids, or all at once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = GRAMMAR
        parser.add_argument("query", nargs="*", metavar="TERM")
        add_collection_option(parser)
        parser.add_argument(
            "-n", "--limit", type=whole_number, default=10, help="hits (default 10)"
        )
        parser.add_argument("--offset", type=whole_number, default=0, help="skip the first ones")
        parser.add_argument(
            "--threshold", type=float, metavar="SCORE", help="no hit below this cosine"
        )
        parser.add_argument(
            "--filter", metavar="WHERE",
            help="only items whose metadata match: 'year >= 2020 and lang = \"de\"', or JSON",
        )  # fmt: skip
        parser.add_argument(
            "--hybrid", nargs="?", type=float, const=0.5, default=0.0, metavar="SHARE",
            help="also look for the words themselves (BM25), with this share of the order (0.5)",
        )  # fmt: skip
        parser.add_argument(
            "--rerank", type=whole_number, default=0, metavar="N",
            help="order the first N by comparing tokens, in a collection that keeps them",
        )  # fmt: skip
        parser.add_argument(
            "--diversity", type=float, default=0.0, metavar="0..1",
            help="trade closeness for variety",
        )  # fmt: skip
        parser.add_argument(
            "--group-by", metavar="FIELD", help="one hit of each value of a metadata field"
        )
        parser.add_argument("--model", help="insist on this model")
        output = parser.add_mutually_exclusive_group()
        output.add_argument(
            "-f", "--files", action="store_true", help="print paths only, for pipes"
        )
        output.add_argument("--json", action="store_true", help="print one JSON array")
        parser.add_argument(
            "--sheet", type=Path, metavar="FILE", help="also draw the hits, as .png or .jpg"
        )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        query = parse_query(args.query)
        sheet = None if args.sheet is None else sheet_file(args.sheet, limit=args.limit)
        folder = collection_folder(args, settings)
        with settings.open_collection(folder, model=args.model, must_exist=True) as collection:
            _warn_of_unserved(query, collection.embedder.languages)
            _warn_of_pictures(query)
            hits = collection.search(
                query,
                limit=args.limit,
                offset=args.offset,
                threshold=args.threshold,
                filter=args.filter,
                hybrid=args.hybrid,
                rerank=args.rerank,
                diversity=args.diversity,
                group_by=args.group_by,
            )
            print_hits(hits, as_json=args.json, paths_only=args.files)
            if not hits and not args.json:
                reasons = unmatched(parse_filter(args.filter), collection.count)
                print("nothing found", *reasons, sep="\n  ", file=sys.stderr)
            if args.group_by is not None:
                _warn_of_no_groups(args.group_by, collection)
            if sheet is not None:
                save_sheet(contact_sheet([sheet_row(collection, query, hits)]), sheet)
        return 0


def _warn_of_unserved(query: Query, languages: Sequence[str]) -> None:
    for part in query.parts:
        if part.text and (script := unserved_script(part.text, languages)):
            served = ", ".join(languages)
            print(
                f"triptych: the model was not taught {script} writing, the hits may be arbitrary; "
                f"it serves {served}.",
                file=sys.stderr,
            )


def _warn_of_no_groups(field: str, collection: Collection) -> None:
    for reason in unmatched(Exists(field), collection.count):
        print(f"triptych: {reason} Each is a group of its own.", file=sys.stderr)


def _warn_of_pictures(query: Query) -> None:
    """What words mean must not hang on what lies about, so a name stays words; but say so."""
    for text in (part.text for part in query.parts if part.text):
        if text.lower().startswith(("http://", "https://")):
            print(
                "triptych: the address was searched as words, as nothing is fetched; "
                "download the picture, and write ./picture.jpg",
                file=sys.stderr,
            )
        elif _may_be_picture(text):
            print(
                f"triptych: {printable(text)!r} was searched as words; "
                f"for the picture write ./{printable(text)}",
                file=sys.stderr,
            )


def _may_be_picture(text: str) -> bool:
    if " " not in text and Path(text).suffix.lower() in SUFFIXES:
        return True  # there or not: its name may be mistyped
    return "\0" not in text and os.path.isfile(text)


def print_hits(hits: Sequence[Hit], *, as_json: bool = False, paths_only: bool = False) -> None:
    """Print hits the way a person, a pipe or a program reads them."""
    if as_json:
        print(json_text([asdict(hit) for hit in hits], indent=1))
        return
    if paths_only and not sys.stdout.isatty():
        if isinstance(sys.stdout, TextIOWrapper):  # names are bytes: on as they are
            sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
        for hit in hits:
            print(_on_disk(hit.uri or hit.id))
        return
    for hit in hits:
        where = printable(hit.uri or hit.id)
        said = f"  {_excerpt(hit.text)}" if hit.text else ""
        print(where if paths_only else f"{hit.score:.3f}  {where}{said}")


def _on_disk(name: str) -> str:
    """Return a name on one line; an id that no disk could hold is escaped."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return printable(name)
    return name.replace("\n", "\\n")


def _excerpt(text: str) -> str:
    """Return the first words on one line, or of one that has no end the first letters."""
    line = printable(" ".join(text.split()))
    if len(line) <= _EXCERPT:
        return line
    cut = line[: _EXCERPT - 2]
    at_word = cut.rpartition(" ")[0] if line[len(cut)] != " " else cut
    # Chinese and Japanese have no blanks between words
    return f"{at_word if len(at_word) > _EXCERPT // 2 else cut} …"


def printable(name: str) -> str:
    """Return a file name as a terminal may show it: control and undecodable bytes escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in name
    )
