"""`triptych mcp`: an MCP server for language models, on standard input and output or over HTTP."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from triptych.cli.serve import OPTIONS, resolved
from triptych.errors import InvalidInput
from triptych.keys import kept
from triptych.registry import Registry
from triptych.settings import Settings

PARTS = Registry(
    "MCP part",
    {
        "config": "triptych.integrations.mcp_tools:McpConfig",
        "stdio": "triptych.integrations.mcp:start_stdio",
        "http": "triptych.integrations.mcp:start_http",
        "connect": "triptych.client.collection:connect",
    },
    extras={"stdio": "mcp", "http": "mcp", "connect": "client"},
)

_OF_SERVE = (
    "host",
    "port",
    "data",
    "key_file",
    "model",
    "allow_host",
    "allow_origin",
    "read_only",
    "request_timeout",
)
_SAID = {"request_timeout": "for the answer to a call (default: 45)"}


class Mcp:
    help = "Serve collections to language models over MCP; docs/integrations.md says how to use it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-c", "--collection", default="default", metavar="NAME")
        parser.add_argument(
            "--folder", type=Path, help="the only folder that clients may name pictures in"
        )
        parser.add_argument("--url", help="use the collection of this server, not the data folder")
        parser.add_argument("--key", help="the key for --url [TRIPTYCH_API_KEY]")
        parser.add_argument(
            "--http", action="store_true", help="serve at /mcp, not on standard input and output"
        )
        for option in OPTIONS:
            said = f"{_SAID.get(option.name, option.help)} [{option.variable}]"
            if option.name == "read_only":
                parser.add_argument(
                    option.flag, dest=option.name, action="store_const", const="1", help=said
                )
            elif option.name in _OF_SERVE:
                parser.add_argument(
                    option.flag, dest=option.name, metavar=option.metavar, help=said
                )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        given = {
            name: value
            for name, value in resolved(vars(args), settings.variables).items()
            if name in _OF_SERVE or name == "log"
        }
        if args.folder is not None and not args.folder.is_dir():
            raise InvalidInput(f"Got --folder {args.folder}, expected a folder.")
        settings = replace(
            settings,
            data=given.pop("data", settings.data),
            model=given.pop("model", settings.model),
        )
        config = PARTS.resolve("config")(
            collection=args.collection,
            folder=args.folder,
            read_only=given.get("read_only", False),
            **({"seconds": given["request_timeout"]} if "request_timeout" in given else {}),
        )
        secret = settings.variables.get("TRIPTYCH_API_KEY")
        source: Any = None
        if args.url is not None:
            key = args.key or secret
            source = PARTS.resolve("connect")(args.url, collection=args.collection, key=key)
        if args.http:
            keys = [kept(secret, name="environment", role="admin")] if secret else []
            PARTS.resolve("http")(settings, config, source, given, keys)
        else:
            PARTS.resolve("stdio")(settings, config, source)
        return 0
