"""`triptych keys`: make, list and remove the keys of a server."""

from __future__ import annotations

import argparse
from pathlib import Path

from triptych.cli.command import whole_number
from triptych.errors import InvalidInput, NotFound
from triptych.keys import ROLES, new_key, read_keys, write_keys
from triptych.settings import Settings


class Keys:
    help = "Make, list and remove the API keys in a file for triptych serve --key-file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", choices=("add", "list", "remove"))
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--name", help="what the key is called, in logs and to remove it")
        parser.add_argument("--tenant", default="default", help="whose collections it opens")
        parser.add_argument("--role", choices=ROLES, default="read", help="(default: read)")
        parser.add_argument("--rate", type=float, metavar="N", help="at most N requests a second")
        parser.add_argument(
            "--daily",
            type=whole_number,
            metavar="N",
            help="at most N items embedded a day",
        )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        path: Path = args.file.expanduser()
        keys = read_keys(path) if path.exists() or args.action != "add" else []
        if args.action == "list":
            for key in keys:
                print(f"{key.name}\t{key.tenant}\t{key.role}")
            return 0
        if args.name is None:
            raise InvalidInput(
                f"Got no name, expected: triptych keys {args.action} FILE --name NAME"
            )
        if args.action == "add":
            secret, key = new_key(
                args.name, tenant=args.tenant, role=args.role, rate=args.rate, daily=args.daily
            )
            write_keys(path, [*keys, key])
            print(secret)
            return 0
        left = [key for key in keys if key.name != args.name]
        if len(left) == len(keys):
            raise NotFound(f"There is no key called {args.name!r} in {path}.")
        write_keys(path, left)
        return 0
