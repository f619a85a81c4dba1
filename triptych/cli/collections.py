"""`triptych collections`: list, create, drop."""

from __future__ import annotations

import argparse

from triptych.errors import InvalidInput
from triptych.settings import Settings


class Collections:
    help = "List the collections of the data folder, create one, drop one."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=("list", "create", "drop"), default="list")
        parser.add_argument("name", nargs="?")
        parser.add_argument("--model", help="the new collection's model, see: triptych models")
        parser.add_argument(
            "--tokens", action="store_true",
            help="keep token states in the new collection, for triptych search --rerank",
        )  # fmt: skip

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        library = settings.library()
        if args.action == "list":
            for name in library.list():
                print(name)
            return 0
        if args.name is None:
            raise InvalidInput(f"Got no name, expected: triptych collections {args.action} NAME")
        if args.action == "create":
            new = settings.create_collection(args.name, model=args.model, tokens=args.tokens)
            new.close()
        else:
            library.drop(args.name)
        return 0
