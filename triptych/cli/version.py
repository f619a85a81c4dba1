"""`triptych version`: which one this is."""

from __future__ import annotations

import argparse
from importlib.metadata import version

from triptych.settings import Settings


class Version:
    help = "Print the version."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        print(f"triptych {version('triptych')}")
        return 0
