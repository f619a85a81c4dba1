"""The sets of pictures with text: read once, kept as plain rows."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet
from PIL import Image

PICTURE_SETS = (
    "flickr8k",
    "emoji",
    "grocery",
    "fashion",
    "vietnamese",
    "caltech101",
    "clothing",
    "medpix",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture, or in `law` one section, with its texts."""

    id: str
    split: str
    image: bytes | None
    texts: tuple[str, ...]
    label: str
    attributes: Mapping[str, object]


def read_rows(path: Path, *, splits: Sequence[str]) -> list[Row]:
    """The rows of one parquet file that belong to `splits`, in the file's order."""
    file = parquet.ParquetFile(path)
    return [
        _row(record)
        for group in range(file.num_row_groups)
        for record in file.read_row_group(group).to_pylist()
        if record["split"] in splits
    ]


def _row(record: Mapping[str, object]) -> Row:
    image, texts = record["image"], record["texts"]
    assert image is None or isinstance(image, bytes)
    assert isinstance(texts, list)
    return Row(
        id=str(record["id"]),
        split=str(record["split"]),
        image=image,
        texts=tuple(texts),
        label=str(record["label"]),
        attributes=json.loads(str(record["attributes"])),
    )


def open_picture(encoded: bytes) -> Image.Image:
    """An RGB picture; what is transparent becomes white, as when encoding."""
    picture = Image.open(io.BytesIO(encoded))
    if picture.mode in ("RGBA", "LA", "P"):
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")
