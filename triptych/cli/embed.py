"""`triptych embed`: vectors of texts and pictures, one JSON line each."""

from __future__ import annotations

import argparse

from triptych.cli.command import json_text
from triptych.errors import InvalidInput
from triptych.retrieval.query import parse_query
from triptych.settings import Settings
from triptych.types import Item


class Embed:
    help = "Print the vectors of texts and pictures, one JSON object a line."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("inputs", nargs="+", metavar="INPUT", help="words, or ./picture.jpg")
        parser.add_argument("--model", help="see: triptych models")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        model = settings.open_model(args.model)
        items = [_item(argument) for argument in args.inputs]
        for argument, vector in zip(args.inputs, model.embed(items), strict=True):
            row = {"input": argument, "model": model.name, "vector": [float(x) for x in vector]}
            print(json_text(row))
        return 0


def _item(argument: str) -> Item:
    """Return one argument as an item; it is spelled as a term of a query is."""
    (part,) = parse_query([argument]).parts
    if part.weight != 1 or part.id is not None:
        raise InvalidInput(
            f"Got {argument!r}, expected words or a picture.", hint="text:... escapes everything."
        )
    return Item(id=argument or " ", text=part.text, image=part.image)
