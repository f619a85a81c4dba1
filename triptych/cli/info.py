"""`triptych info`: what a collection holds, and with which model."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from triptych.cli.command import add_collection_option, collection_folder
from triptych.settings import Settings


class Info:
    help = "Show a collection: model, count, index, size on disk, damage."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_collection_option(parser)
        parser.add_argument("--json", action="store_true")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = collection_folder(args, settings)
        with settings.open_collection(folder, must_exist=True) as collection:
            info = collection.info()
        info["bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if args.json:
            print(json.dumps(info, indent=1))
            return 0
        info["created"] = datetime.fromtimestamp(info["created"], UTC).isoformat(timespec="seconds")
        info["bytes"] = f"{info['bytes'] / 2**20:.1f} MB"
        option = settings.option_of(info["model"], info["fingerprint"])
        if option not in (None, info["model"]):
            info["model"] += f" (--model {option})"
        kept = info["pictures"]
        info["pictures"] = f"{kept['count']:,} kept whole ({kept['bytes'] / 2**20:.1f} MB)"
        info["damaged"] = ", ".join(info["damaged"]) or "none"
        info["spaces"] = ", ".join(
            f"{space['model']} ({space['vectors']:,} vectors{', searched' * space['searched']})"
            for space in info["spaces"]
        )
        for key, value in info.items():
            print(f"{key:12} {value}")
        return 0
