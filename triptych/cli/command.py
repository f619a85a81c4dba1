"""What a command is, and the options that several share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol

from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.settings import Settings


class Command(Protocol):
    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        """Do it and return the exit code."""


def add_collection_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--collection", default="default", metavar="NAME",
        help="a collection's name, or its folder as a path with a / in it (default: default)",
    )  # fmt: skip


def open_collection(args: argparse.Namespace, settings: Settings, **options: object) -> Collection:
    """Return the collection that `--collection` names; a `/` makes it a folder."""
    name: str = args.collection
    if "/" in name:
        return settings.open_collection(Path(name).expanduser(), **options)  # type: ignore[arg-type]
    return settings.open_collection(settings.library().path(name), **options)  # type: ignore[arg-type]


def whole_number(text: str) -> int:
    """Return `text` as an int, for argparse: its own message names neither value nor range."""
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"Got {text!r}, expected a whole number.") from None
