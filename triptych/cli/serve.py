"""`triptych serve`: the collections of a data folder over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triptych.errors import InvalidInput
from triptych.keys import kept
from triptych.registry import Registry
from triptych.settings import Settings

SERVERS = Registry("server", {"http": "triptych.api.server:start"}, extras={"http": "server"})
"""The server is loaded when it is started: help and errors need none of it."""

_PREFIX = "TRIPTYCH_"
_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("expected a whole number")
    return int(text)


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        found = _whole(text)
        if not least <= found <= most:
            raise ValueError(f"expected a number from {least} to {most}")
        return found

    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:
        raise ValueError("expected seconds, more than 0")
    return seconds


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < 1e9:
        raise ValueError("expected a number from 0 on")
    return rate


def _cosine(text: str) -> float:
    cosine = float(text)
    if not 0 < cosine <= 1:
        raise ValueError("expected a cosine, more than 0 and at most 1")
    return cosine


def _size(text: str) -> int:
    number, unit = text[:-2], text[-2:].upper()
    return _whole(number) * _UNITS[unit] if unit in _UNITS else _whole(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _choice(*known: str) -> Callable[[str], str]:
    def chosen(text: str) -> str:
        if text not in known:
            raise ValueError(f"expected {', '.join(known)}")
        return text

    return chosen


def _switch(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
        text.lower()
    ]


@dataclass(frozen=True, slots=True)
class Option:
    """One option, and the environment variable that says the same."""

    name: str
    read: Callable[[str], Any]
    help: str
    metavar: str = "VALUE"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"{_PREFIX}{self.name.upper()}"


OPTIONS = (
    Option("host", str, "where to listen (default: 127.0.0.1, this machine only)", "ADDRESS"),
    Option("port", _between(0, 65_535), "the port (default: 8000; 0: any free one)", "N"),
    Option("workers", _between(1, 256), "processes that serve (default: 1)", "N"),
    Option("data", Path, "the data folder", "FOLDER"),
    Option("key_file", Path, "who may call: a file that triptych keys made", "FILE"),
    Option("model", str, "the model of new collections and embeddings", "NAME"),
    Option("also_model", _names, "further models that requests may name", "NAMES"),
    Option("redis_url", str, "the shared cache tier", "URL"),
    Option("pool", _between(1, 1_024), "requests worked on at once (default: 32)", "N"),
    Option("queue", _whole, "requests that wait; beyond it 429 (default: 256)", "N"),
    Option("rate", _rate, "requests a second of a key (default: 0, no limit)", "N"),
    Option("max_body", _size, "of a body that is no NDJSON (default: 32MB)", "SIZE"),
    Option("request_timeout", _seconds, "for the answer (default: 60)", "SECONDS"),
    Option("drain_timeout", _seconds, "to finish what runs after SIGTERM (default: 30)", "SECONDS"),
    Option("allow_host", _names, "further values of Host", "NAMES"),
    Option("allow_origin", _names, "web pages that may call", "ORIGINS"),
    Option("allow_url", _names, "hosts that pictures may be fetched from (default: none)", "NAMES"),
    Option("query_log", _switch, "note what is asked most, to have it ready at the next start"),
    Option("near", _cosine, "answer as for an earlier query this near (default: never)", "COSINE"),
    Option("otlp", str, "the OpenTelemetry collector that traces go to (default: none)", "URL"),
    Option("read_only", _switch, "refuse whatever writes"),
    Option("follow", str, "copy the collections of the server there, and only read", "URL"),
    Option("follow_key", str, "a key of that server that may read", "KEY"),
    Option("follow_every", _seconds, "between two looks at it (default: 2)", "SECONDS"),
    Option("discard_pictures", _switch, "keep thumbnails only of what is sent"),
    Option("log", _choice("json", "text", "off"), "json, text or off (default: json)", "FORM"),
)


class Serve:
    help = "Serve the collections of a data folder over HTTP; docs/http.md says how to call it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = (
            "Each option is also an environment variable, named beside it; the option wins.\n"
            "TRIPTYCH_API_KEY is one admin key of the tenant default, 32 characters or more.\n"
        )
        for option in OPTIONS:
            said = f"{option.help} [{option.variable}]"
            if option.read is _switch:
                parser.add_argument(
                    option.flag, dest=option.name, action="store_const", const="1", help=said
                )
            else:
                parser.add_argument(
                    option.flag, dest=option.name, metavar=option.metavar, help=said
                )

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        given = resolved(vars(args), settings.variables)
        secret = settings.variables.get(f"{_PREFIX}API_KEY")
        settings = replace(
            settings,
            data=given.pop("data", settings.data),
            model=given.pop("model", settings.model),
            cache=replace(
                settings.cache,
                redis_url=given.pop("redis_url", settings.cache.redis_url),
                query_log=given.pop("query_log", settings.cache.query_log),
            ),
        )
        start = SERVERS.resolve("http")
        start(settings, given, [kept(secret, name="environment", role="admin")] if secret else [])
        return 0


def resolved(args: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that are given, on the line or in the environment, as they are meant.

    Raises InvalidInput that names the option or the variable.
    """
    found: dict[str, Any] = {}
    for option in OPTIONS:
        on_line = args.get(option.name)
        text = variables.get(option.variable) if on_line is None else on_line
        if text is None:
            continue
        try:
            found[option.name] = option.read(text)
        except (ValueError, KeyError) as error:
            name = option.variable if on_line is None else option.flag
            why = error if isinstance(error, ValueError) else "expected 1 or 0"
            raise InvalidInput(f"Got {name} {text!r}: {why}.") from None
    return found
