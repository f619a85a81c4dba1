"""`triptych context`: what to give to a language model, with citations."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from triptych.cli.command import (
    add_collection_option,
    collection_folder,
    json_text,
    whole_number,
)
from triptych.filters import parse_filter
from triptych.retrieval.query import parse_query
from triptych.retrieval.rag.context import Context as Packed
from triptych.retrieval.rag.retriever import Retriever
from triptych.retrieval.unmatched import unmatched
from triptych.settings import Settings

EXAMPLE = """\
  triptych index --documents ~/handbook -c handbook
  triptych context "How is a filter written?" -c handbook | llm
"""


class Context:
    help = "Print passages that answer a question, marked as data, for a language model."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = EXAMPLE
        parser.add_argument("query", nargs="+", metavar="TERM", help="as in triptych search")
        add_collection_option(parser)
        parser.add_argument(
            "--budget", type=whole_number, default=2_000, metavar="N", help="tokens (2000)"
        )
        parser.add_argument("--filter", metavar="WHERE", help="as in triptych search")
        parser.add_argument(
            "--expand", type=float, metavar="SHARE",
            help="how far links and citations are followed, from 0 to below 1 (0.5)",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="the prompt with its citations")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = collection_folder(args, settings)
        with settings.open_collection(folder, must_exist=True) as collection:
            context = Retriever(collection).context(
                parse_query(args.query),
                budget=args.budget,
                filter=args.filter,
                expand=args.expand,
            )
            asked = None if context.sources else parse_filter(args.filter)
            reasons = unmatched(asked, collection.count)
        print(_json(context) if args.json else context.prompt)
        if asked is not None:
            print("nothing found", *reasons, sep="\n  ", file=sys.stderr)
        elif not context.citations:
            print(
                "triptych: none of this is of a document, so it cites nothing. "
                "Take documents in: triptych index --documents FOLDER -c NAME",
                file=sys.stderr,
            )
        return 0


def _json(context: Packed) -> str:
    sources = [asdict(source) for source in context.sources]
    said = {"prompt": context.prompt, "tokens": context.tokens, "sources": sources}
    return json_text(said, indent=1)
