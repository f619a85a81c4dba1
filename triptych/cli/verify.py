"""`triptych verify`: is everything as it was written? `--repair` mends what is not."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from triptych.cli.command import add_collection_option, existing_folder
from triptych.cli.search import printable
from triptych.encoders.onnx import OnnxModel
from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.sqlite.check import Finding
from triptych.index.sqlite.salvage import Lost
from triptych.retrieval.collection import Collection
from triptych.retrieval.library import model_folder
from triptych.retrieval.maintenance.repair import Repair, repair
from triptych.retrieval.maintenance.verify import BEYOND_REPAIR, Verification, verify
from triptych.settings import Settings

_NAMED = 20  # --json has them all


class Verify:
    help = "Hash everything in a collection and compare index and store. Exit code 1: damage."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_collection_option(parser)
        parser.add_argument(
            "--repair", action="store_true",
            help="mend what is wrong; what is lost is named, a damaged store is kept beside",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true")

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        folder = existing_folder(args, settings)
        found = verify(folder)
        mended = repair(found, threads=settings.num_threads) if args.repair else None
        now = verify(folder) if mended is not None and mended.done else found
        _add_model(found, settings)
        if now is not found:
            _add_model(now, settings)
        if args.json:
            print(json.dumps(_as_json(found, mended, now), indent=1))
        else:
            _print(found, mended, now, name=args.collection)
        return 0 if now.ok and (mended is None or mended.complete) else 1


def _add_model(found: Verification, settings: Settings) -> None:
    """Look at the copy of the collection's model too: else vectors to come change in silence."""
    with suppress(CollectionDamaged):  # which was found already
        known = Collection.peek(found.folder)
        kept = None if known is None else model_folder(settings.data, known.fingerprint)
        if kept is not None and kept.is_dir():
            found.checked["model"] = "its copy, by hash"
            try:
                OnnxModel.load(kept).verify()
            except NotAvailable as error:
                found.findings.append(Finding("model", f"{error.message} {error.hint}"))


def _print(found: Verification, mended: Repair | None, now: Verification, *, name: str) -> None:
    _print_table(found)
    _print_findings(found.findings)
    if mended is not None:
        for line in mended.done:
            print(f"repaired: {line}")
        _print_lost(mended)
        if not now.ok:
            print("still wrong:")
            _print_findings(now.findings)
    elif set(found.wrong()) - {"model"}:  # of that its finding says what to do
        for part, advice in BEYOND_REPAIR.items():
            if part in found.wrong():
                print(advice)
                return
        print(f"To repair it: triptych verify --repair -c {shlex.quote(name)}")


def _print_table(found: Verification) -> None:
    wrong = found.wrong()
    for part in {**found.checked, **wrong}:
        verdict = f"{wrong[part]:,} wrong" if part in wrong else "ok"
        print(f"{part:12}{found.checked.get(part, ''):36}{verdict}")


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings[:_NAMED]:
        print(f"  {finding.part}: {printable(finding.message)}")
    if len(findings) > _NAMED:
        print(f"  ... and {len(findings) - _NAMED:,} more, all of them with --json")


def _print_lost(mended: Repair) -> None:
    if mended.lost:
        print(f"lost: {len(mended.lost):,} items. Add them again, or index their folder again.")
    for lost in mended.lost[:_NAMED]:
        print(f"  {_named(lost)}")
    if len(mended.lost) > _NAMED:
        print(f"  ... and {len(mended.lost) - _NAMED:,} more, all of them with --json")
    for what, names in (
        ("thumbnails", mended.without_thumbnail),
        ("token states", mended.without_tokens),
        ("pictures", mended.without_picture),
    ):
        if names:
            ids = ", ".join(printable(id) for id in names[:_NAMED])
            print(f"lost: the {what} of {len(names):,} items: {ids}")


def _named(lost: Lost) -> str:
    name = f"the item of row {lost.row}" if lost.id is None else printable(lost.id)
    return name if lost.record is None else f"{name} (its vector)"


def _as_json(found: Verification, mended: Repair | None, now: Verification) -> dict[str, object]:
    said: dict[str, object] = {
        "ok": now.ok,
        "checked": found.checked,
        "findings": [finding._asdict() for finding in found.findings],
    }
    if mended is not None:
        said["repaired"] = mended.done
        said["lost"] = [{"row": lost.row, "id": lost.id} for lost in mended.lost]
        said["without_thumbnail"] = mended.without_thumbnail
        said["without_tokens"] = mended.without_tokens
        said["without_picture"] = mended.without_picture
        said["damaged_store"] = None if mended.kept is None else str(Path(mended.kept))
        said["still_wrong"] = [finding._asdict() for finding in now.findings]
    return said
