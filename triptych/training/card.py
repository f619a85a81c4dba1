"""The model card, from the report of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from triptych.training.artefact import LANGUAGES
from triptych.training.sources import is_own

TEXT = """# {name}

Texts, pictures, or both at once to vectors of {dim} numbers in one space; the first {prefixes}
of them, made unit, are vectors too. {megabytes} MB, run by ONNX Runtime on a CPU, made by
Triptych's own training (`python -m triptych.training`) in the stages {stages}.

## What it is

- Pictures: MobileNetEdgeTPU 1.0 (224x224, the whole picture squashed), attention pooling beside
  the mean. Eight bits, static: every scale was fixed at export.
- Texts: a 6-layer transformer of width 384, 256 tokens; a longer text is the mean of up to 32
  segments. Weights in eight bits, multiplied out at load, the table of words in four; nothing that
  they meet is rounded. A text embeds alone as it does in a batch: it is padded to a multiple of
  four, whatever its company.
- An item with a text and a picture: words and patches see each other through cross-modal attention
  with a bottleneck of 8 latents and a soft spatial mask, then both sides are added.
- Experts: words and patches go through the same 128 small experts, 3.2 of them each on average
  (sparsemax router; its threshold was frozen at the end). Only the chosen ones are computed.
- A vector tells in its first two numbers how much of a hub it is: how near it lies to captions, or
  photos, of training (inverted softmax over 256 centres at most). So the cosine of a text and a
  picture is lower for what lies near to everything; it is 0.3 higher than without for all pairs
  alike.
- A scorer of pairs for reranking: late interaction (MaxSim) of words and patches in a space of 256
  numbers of its own, learnt from what the towers read, before fusion and experts.
- Tokenizer: {pieces:,} pieces, all 256 bytes among them, so nothing is unknown. NFKC, lower case,
  marks are kept.
- In training texts and pictures also compete with each other, so that both answer one query.
  Subtracting each modality's mean was tried too: it cost a point of recall and mixed no better.

## What it started from, and what it was trained on

| source | used as | terms |
|---|---|---|
| MobileNetEdgeTPU 1.0 (ImageNet-1k) | start of the picture tower | Apache-2.0; ImageNet: research |
| all-MiniLM-L6-v2 | start of the text tower | Apache-2.0 |
{sources}

{began}

No picture is part of the model. Because some sources are for research or state no terms, whoever
ships it in a product of their own should look at that list first. Nothing of any `dev` or `test`
split was trained on.

## Figures

Dev splits, percent, from raw pictures through the shipped files (in brackets: the float32 export).

| | |
|---|---|
{figures}

Languages: English is what most training text was in. Vietnamese: captions of ball sports. The
others ({languages}) were learnt from
texts alone: the names of 3,216 emoji, and what else the table above says. Words for everyday things
work to some degree (see the table: emoji found by name), sentences less. A language not listed is
bytes without meaning.

| agreement | text | image | both |
|---|---|---|---|
{agreement}

On one thread: {milliseconds}.

## What it is not for

- Faces, identities, or any property of a person; medical findings: it saw 1,653 scans, and at best
  tells a chest from a head.
- Reading what is written in a picture; counting; left and right; small details (it sees 224x224).
- It has the leanings of its sources: Flickr8k shows dogs, children and sports; the fashion shop
  is Indian.
- A score is no probability: compare scores of one query only.
"""

SOURCES = {
    "flickr8k": "Flickr8k, photos with English captions | pairs | research use, not redistributed",
    "vietnamese": "sports photos with Vietnamese captions | pairs | unstated",
    "fashion": "fashion products with titles | pairs | unstated",
    "emoji": "Noto emoji, names in 27 languages | pairs, translations | Apache-2.0, MIT (text)",
    "caltech101": "Caltech-101 | object names | CC BY 4.0",
    "clothing": "clothing | garment names | CC0",
    "grocery": "grocery, shelf and catalogue photos | product names, descriptions | MIT",
    "medpix": "CT and MR pictures | captions, kind of scan | research use",
    "clipart": "Open Clip Art Library, drawings | titles and keywords | public domain",
    "law": "German statutes, heading and body, text alone | pairs | official works",
    "dictionaries": "FreeDict, 21 languages, CC-CEDICT and wordfreq, words with what they mean in "
    "English and how common they are | translations | GPL, CC BY-SA",
}
ROWS = {
    "Flickr8k: text finds picture, recall@1 / @10": ("flickr8k.t2i@1", "flickr8k.t2i@10"),
    "Flickr8k: picture finds text, recall@1 / @10": ("flickr8k.i2t@1", "flickr8k.i2t@10"),
    "half notes, half photos: both in the first ten / share of photos": (
        "flickr8k.mixed_both", "flickr8k.mixed_photos",
    ),
    "fashion: title finds its picture among 1,000, recall@1 / @10": ("fashion@1", "fashion@10"),
    "emoji, English name, recall@1 / @10": ("emoji.en@1", "emoji.en@10"),
    "emoji, Chinese": ("emoji.zh@1", "emoji.zh@10"),
    "emoji, German": ("emoji.de@1", "emoji.de@10"),
    "emoji, Hindi": ("emoji.hi@1", "emoji.hi@10"),
    "Vietnamese: text finds picture, recall@1 / @10": ("vietnamese.t2i@1", "vietnamese.t2i@10"),
    "grocery: the first picture is the product / one of ten is": ("grocery@1", "grocery@10"),
    "Caltech-101, likewise": ("caltech101@1", "caltech101@10"),
    "clothing, likewise": ("clothing@1", "clothing@10"),
    "CT and MR: caption finds picture, recall@1 / @10": ("medpix@1", "medpix@10"),
    "Flickr8k with the first 256 numbers, recall@1 / @10": ("flickr8k.256@1", "flickr8k.256@10"),
    "... the first 128": ("flickr8k.128@1", "flickr8k.128@10"),
    "... the first 64": ("flickr8k.64@1", "flickr8k.64@10"),
    "a product from photo and part of its text, found by its title, recall@1 / @10": (
        "fashion.both@1", "fashion.both@10",
    ),
    "... from its photo alone": ("fashion.photo@1", "fashion.photo@10"),
    "... from that part alone": ("fashion.part@1", "fashion.part@10"),
    "captions, the first 50 reranked by the scorer of pairs, recall@1": ("rerank@1", "rerank@1"),
}  # fmt: skip
AGREEMENT = {
    "float32 export and torch, lowest cosine": "parity_float32",
    "shipped eight bits and torch, lowest cosine": "parity_eight_bits",
    "alone and in a batch, float32, lowest cosine": "alone_float32",
    "alone and in a batch, eight bits, lowest cosine": "alone_eight_bits",
}


def model_card(report: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    shipped, exact = report["dev_eight_bits"], report["dev_float32"]
    figures = [
        f"| {name} | {_pair(shipped, keys)} ({_pair(exact, keys)}) |"
        for name, keys in (ROWS | _own_rows(report["sets"])).items()
        if keys[0] in shipped
    ]
    agreement = [f"| {name} | {_sides(report[key])} |" for name, key in AGREEMENT.items()]
    times = report["milliseconds"]
    return TEXT.format(
        name=report["name"],
        dim=report["dim"],
        prefixes=", ".join(map(str, report["prefixes"])),
        megabytes=report["megabytes"],
        stages=", ".join(f"`{stage['name']}`" for stage in report["recipe"]),
        pieces=report["pieces"],
        sources="\n".join(_sources(report["sets"])),
        began=_began(report["began"]),
        figures="\n".join(figures),
        agreement="\n".join(agreement),
        languages=", ".join(tag for tag in LANGUAGES if tag not in ("en", "vi")),
        milliseconds=f"a text {times['text']} ms, a picture {times['picture']} ms with decoding, "
        f"the first text with loading {times['first_text']} ms",
    )


def _own_rows(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    return {
        f"{name}: text finds picture, recall@1 / @10": (f"{name}.t2i@1", f"{name}.t2i@10")
        for name in names
        if is_own(name)
    }


def _sources(sets: Mapping[str, int]) -> Iterator[str]:
    for name, count in sets.items():
        if name in SOURCES:
            what, *rest = SOURCES[name].split(" | ", 1)
            yield f"| {what}: {count:,} | {rest[0]} |"
        elif is_own(name):
            yield f"| {name}: {count:,} | pairs | not known here |"


def _began(name: str | None) -> str:
    if name is None:
        return "Everything else began at random, and was learnt from these."
    return (
        f"It began as {name}, whose start and whose sources are those of its own card, "
        "and was taught further by what is above."
    )


def _sides(agreement: Mapping[str, float]) -> str:
    sides = [agreement.get(side) for side in ("text", "image", "both")]
    return " | ".join("" if cosine is None else f"{cosine:.7f}" for cosine in sides)


def _pair(figures: Mapping[str, float], keys: tuple[str, str]) -> str:
    return " / ".join(f"{figures[key]:.1f}" for key in keys)
