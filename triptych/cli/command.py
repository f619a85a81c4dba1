"""What a command is, and the options that several share."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from triptych.errors import InvalidInput
from triptych.settings import Settings

# -heels begins like -h, and argparse complains of 'eels'
_STUCK = re.compile(
    r"argument -(\w)/--\S+: ignored explicit argument '(\w+)'|unrecognized arguments: -(\w+)"
)


class Command(Protocol):
    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        """Do it and return the exit code."""


def run(command: Command, name: str, arguments: Sequence[str]) -> int:
    """Run the command of that name with its arguments; return the exit code."""
    parser = Parser(prog=f"triptych {name}", description=command.help)
    command.add_arguments(parser)
    return command.run(parser.parse_intermixed_args(arguments), Settings.from_env())


def add_collection_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--collection", default="default", metavar="NAME",
        help="a collection's name, or its folder as a path with a / in it (default: default)",
    )  # fmt: skip


def collection_folder(args: argparse.Namespace, settings: Settings) -> Path:
    """Return the folder that `--collection` names; a `/` in it makes it a path."""
    name: str = args.collection
    return Path(name).expanduser() if "/" in name else settings.library().path(name)


def existing_folder(args: argparse.Namespace, settings: Settings) -> Path:
    """Return the same folder; raises NotFound, which names the collections, where there is none."""
    folder = collection_folder(args, settings)
    if not folder.exists():
        raise settings.missing(folder)
    return folder


def whole_number(text: str) -> int:
    """Return `text` as an int, for argparse, whose own message would name this function."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number") from None


def positive_number(text: str) -> int:
    """Return `text` as an int of 1 or more, for argparse."""
    number = whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, expected 1 or more")
    return number


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return JSON with its letters as they are, or escaped where standard output lacks one.

    A file name that is no UTF-8, or a terminal of one country, made no JSON of it, or none at all.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are sentences like all others."""

    def error(self, message: str) -> NoReturn:
        hint = f"See: {self.prog} --help"
        if found := _STUCK.fullmatch(message):
            word = "".join(part for part in found.groups() if part)
            message = f"unrecognized arguments: -{word}"
            if self.prog.endswith(" search"):
                hint = f"A minus stands alone: - {word}. {hint}"
        raise InvalidInput(f"{message[:1].upper()}{message[1:]}.", hint=hint)
