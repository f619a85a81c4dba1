"""The default model on the dev split of every set: what `triptych eval` says, in one table.

`python -m benchmarks.quality --plain` leaves out the two numbers that tell of hubs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common import DATA
from triptych.cache.base import NoCache
from triptych.embedder import Embedder
from triptych.encoders.base import EmbeddingModel, unit_rows
from triptych.retrieval.evaluate import evaluate, read_pictures
from triptych.settings import Settings
from triptych.types import Item, Matrix


@dataclass(frozen=True)
class Task:
    name: str
    file: str
    limit: int | None = None
    language: str | None = None
    first_text: bool = False


TASKS = [
    Task("Flickr8k, captions", "flickr8k"),
    Task("Vietnamese captions", "vietnamese"),
    Task("fashion titles, 1,000", "fashion", limit=1000),
    Task("emoji names, en", "emoji", first_text=True),
    *(
        Task(f"emoji names, {tag}", "emoji", language=tag, first_text=True)
        for tag in ("zh", "de", "hi", "ja", "es", "ru")
    ),
    Task("grocery names", "grocery"),
    Task("caltech101 names", "caltech101"),
    Task("clothing names", "clothing"),
    Task("medpix captions", "medpix"),
]


class Plain(Embedder):
    """The model without what its vectors tell of hubs (`triptych.encoders.hubness`)."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__(model, cache=NoCache())

    def embed(self, items: Sequence[Item]) -> Matrix:
        emb_NM = self.model.embed(items)
        emb_NM[:, :2] = 0
        return unit_rows(emb_NM)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plain", action="store_true", help="leave out what tells of hubs")
    settings = Settings.from_env()
    model = settings.open_model(threads=settings.num_threads)
    if parser.parse_args().plain:
        model = Plain(model)
    print(f"{model.name}, dev split, percent")
    print(
        f"{'':24}{'t→p @1':>8}{'@5':>7}{'@10':>7}{'p→t @1':>9}{'@10':>7}{'label mAP':>11}{'P@1':>7}"
    )
    for task in TASKS:
        pictures = read_pictures(
            DATA / f"{task.file}.parquet",
            split="dev",
            limit=task.limit,
            language=task.language,
            first_text=task.first_text,
        )
        print(_line(task.name, evaluate(model, pictures)), flush=True)


def _line(name: str, report: dict) -> str:
    forth, back, labels = report["text_to_image"], report["image_to_text"], report["labels"]
    cells = f"{100 * forth['recall@1']:8.1f}"
    cells += "".join(f"{100 * forth[key]:7.1f}" for key in ("recall@5", "recall@10"))
    cells += "".join(f"{100 * back[key]:9.1f}" for key in ("recall@1", "recall@10"))
    if labels is not None and labels["num_labels"] < report["num_pictures"]:
        cells += f"{100 * labels['map']:11.1f}{100 * labels['precision@1']:7.1f}"
    return f"{name:24}{cells}"


if __name__ == "__main__":
    main()
