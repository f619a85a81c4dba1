"""`triptych serve`: not here yet, and says so."""

from __future__ import annotations

import argparse

from triptych.errors import NotAvailable
from triptych.settings import Settings


class Serve:
    help = "Serve a collection over HTTP."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        raise NotAvailable(
            "This version has no HTTP server yet.",
            hint='Use triptych search, or in Python triptych.open(path).search("a dog").',
        )
