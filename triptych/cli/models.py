"""`triptych models`: what can be named with --model and TRIPTYCH_MODEL."""

from __future__ import annotations

import argparse

from triptych.settings import MODELS, Settings

_DESCRIPTIONS = {
    "default": "trained by this project, shipped in the package; offline, no torch",
    "fine": "the same, looking at every picture twice: better hits, half as many pictures a second",
    "hashing": "no weights: colours and letters, for tests",
    "open_clip": "open_clip:<architecture>:<tag or weights file>; needs the extra [torch]",
    "vectors": "vectors:<name>:<dim>: your own vectors, embedded elsewhere",
}


class Models:
    help = "List the models, or describe one."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("model", nargs="?", help="load this one and describe it")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        if args.model is None:
            for name in MODELS.names():
                mark = "*" if name == settings.model.partition(":")[0] else " "
                print(f"{mark} {name:10} {_DESCRIPTIONS.get(name, 'from a plug-in')}")
            return 0
        model = settings.open_model(args.model)
        print(f"name         {model.name}")
        print(f"fingerprint  {model.fingerprint}")
        print(f"dimension    {model.dim}")
        print(f"languages    {', '.join(model.languages) or 'none declared'}")
        return 0
