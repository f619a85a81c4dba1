"""`triptych eval`: measure any model on a Parquet file of pictures with texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from triptych.cli.command import whole_number
from triptych.errors import InvalidInput
from triptych.retrieval.evaluate import evaluate, format_table, read_pictures
from triptych.settings import Settings


class Eval:
    help = "Measure a model: recall@1/5/10 and median rank both ways, mAP over labels, nDCG."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "file", type=Path, help="Parquet: id, split, image, texts, label, attributes"
        )
        parser.add_argument("--model", help="see: triptych models")
        parser.add_argument("--split", help="default: test where there is one, else dev, else all")
        parser.add_argument("--limit", type=whole_number, help="only the first so many pictures")
        parser.add_argument(
            "--language", metavar="TAG", help="texts from the attribute of this name"
        )
        parser.add_argument(
            "--first-text",
            action="store_true",
            help="of each picture only the first text: its name",
        )
        parser.add_argument("--json", action="store_true", help="fractions from 0 to 1, as JSON")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        if args.limit is not None and args.limit < 1:
            raise InvalidInput(f"Got --limit {args.limit}, expected 1 or more.")
        pictures = read_pictures(
            args.file,
            split=args.split,
            limit=args.limit,
            language=args.language,
            first_text=args.first_text,
        )
        model = settings.open_model(args.model, threads=settings.num_threads)
        with tqdm(desc="embedding", unit=" items", leave=False, disable=None) as bar:
            report = evaluate(model, pictures, progress=bar.update)
        print(json.dumps(report, indent=1) if args.json else format_table(report))
        return 0
