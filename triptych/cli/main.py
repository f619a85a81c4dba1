"""`triptych <command> ...`: options anywhere, errors as sentences."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

from triptych.errors import NotFound, TriptychError
from triptych.registry import Registry

COMMANDS = Registry(
    "command",
    {
        "index": "triptych.cli.index:Index",
        "search": "triptych.cli.search:Search",
        "context": "triptych.cli.context:Context",
        "migrate": "triptych.cli.migrate:Migrate",
        "collections": "triptych.cli.collections:Collections",
        "info": "triptych.cli.info:Info",
        "models": "triptych.cli.models:Models",
        "embed": "triptych.cli.embed:Embed",
        "eval": "triptych.cli.eval:Eval",
        "verify": "triptych.cli.verify:Verify",
        "dedup": "triptych.cli.dedup:Dedup",
        "export": "triptych.cli.export:Export",
        "import": "triptych.cli.import_:Import",
        "demo": "triptych.cli.demo:Demo",
        "serve": "triptych.cli.serve:Serve",
        "mcp": "triptych.cli.mcp:Mcp",
        "keys": "triptych.cli.keys:Keys",
        "version": "triptych.cli.version:Version",
    },
)

USAGE = """\
triptych: find pictures and text with either, or with both at once

  triptych index ~/Pictures            index a folder; again: only what changed
  triptych search "a dog on a beach"   search it by words
  triptych search ./photo.jpg          ... by a picture
  triptych search "red shoe" + ./photo.jpg - "heels"

commands:
  index        index folders, pictures, manifests (JSONL, CSV, Parquet) and tars
  search       find by words, pictures, stored ids, or all at once
  context      passages of documents that answer a question, for a language model
  migrate      change the model of a collection, which answers throughout
  collections  list, create and drop collections
  info         what a collection holds
  models       the models that can be named with --model
  embed        print vectors of texts and pictures
  eval         measure a model on a Parquet file of pictures with texts
  verify       hash everything, and repair it where it is damaged
  dedup        show what is there twice, or nearly
  export       write a collection to one file
  import       make a collection from such a file
  demo         get sample pictures, index them, search them, draw a contact sheet
  serve        serve the collections of a data folder over HTTP
  mcp          serve them to language models over MCP
  keys         make, list and remove the keys of a server
  version      say which version this is

`triptych <command> --help` says more. The environment: TRIPTYCH_DATA, TRIPTYCH_MODEL,
TRIPTYCH_REDIS_URL, TRIPTYCH_THREADS, TRIPTYCH_RECALL, TRIPTYCH_MEMORY.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for done, 1 failed, 2 called wrongly, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _prepare()
        code = _called(arguments)
        sys.stdout.flush()  # now: at its exit Python would only complain of a closed pipe
        return code
    except TriptychError as error:
        print(f"triptych: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except ImportError as error:  # what is written in C makes this of Ctrl-C while it is loaded
        if isinstance(error.__cause__, KeyboardInterrupt):
            return _interrupted()
        raise
    except BrokenPipeError:  # `triptych search ... | head` closed the pipe: not our error
        _drop_output()
        return 0
    except OSError as error:  # a folder that cannot be made, a full or read-only disk
        reason = os.strerror(error.errno) if error.errno else str(error)
        named = f" {os.fsdecode(error.filename)}" if error.filename is not None else ""
        print(f"triptych: The system refused{named}: {reason}.", file=sys.stderr)
        _drop_output()
        return 1


def _prepare() -> None:
    """Set up what a terminal sees: our own sentences, and letters it has not as escapes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: what is said is for nobody
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    logging.basicConfig(level=logging.WARNING, format="triptych: %(message)s")
    # of odd metadata in a picture that is read all the same, without its name
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _called(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        arguments[0] = "version"
    return _run(arguments[0], arguments[1:])


def _interrupted() -> int:
    print("triptych: interrupted; what was acknowledged is kept.", file=sys.stderr)
    return 130


def _drop_output() -> None:
    """Send what cannot be written nowhere: at its exit Python would try again, and complain."""
    with suppress(OSError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(name: str, arguments: list[str]) -> int:
    try:
        # only here is anything large loaded: so Ctrl-C in that second ends as it does later
        command = COMMANDS.resolve(name)
    except NotFound as error:
        raise NotFound(error.message, hint="See: triptych --help") from None
    return int(import_module("triptych.cli.command").run(command(), name, arguments))
