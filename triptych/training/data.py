"""The sets of pictures with text: read once, kept as plain rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet

from triptych.errors import InvalidInput

PICTURE_SETS = (
    "flickr8k",
    "emoji",
    "grocery",
    "fashion",
    "vietnamese",
    "caltech101",
    "clothing",
    "medpix",
    "clipart",
)
TEXT_SETS = ("law", "dictionaries")
_COLUMNS = ("id", "split", "image", "texts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture, or in `law` one section, with its texts."""

    id: str
    split: str
    image: bytes | None
    texts: tuple[str, ...]
    label: str
    attributes: Mapping[str, object]


def picture_sets(data: Path) -> dict[str, Path]:
    """Return the files of pictures by set: those that recipes name first, then anybody's own.

    `data` is a folder of Parquet files, or one such file. Raises InvalidInput where none is.
    """
    files = {
        file.stem: file for file in sorted([data] if data.is_file() else data.glob("*.parquet"))
    }
    own = [name for name in files if name not in (*PICTURE_SETS, *TEXT_SETS)]
    found = {name: files[name] for name in (*PICTURE_SETS, *own) if name in files}
    if not found:
        raise InvalidInput(f"{data} holds no Parquet file of pictures, nor is it one.")
    return found


def read_rows(path: Path, *, splits: Sequence[str]) -> list[Row]:
    """The rows of one parquet file that belong to `splits`: one split after the other.

    Raises InvalidInput for a file of another kind, and for one without such rows.
    """
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError):
        raise InvalidInput(f"{path} is not a readable Parquet file.") from None
    if missing := [name for name in _COLUMNS if name not in file.schema_arrow.names]:
        raise InvalidInput(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            hint=f"Expected {', '.join(_COLUMNS)}, and label and attributes where there are any.",
        )
    rows = [
        _row(record)
        for group in range(file.num_row_groups)
        for record in file.read_row_group(group).to_pylist()
        if record["split"] in splits
    ]
    if not rows:
        raise InvalidInput(f"{path} has no rows of the split {' or '.join(splits)}.")
    return sorted(rows, key=lambda row: splits.index(row.split))


def checked(rows: Sequence[Row], *, of: Path) -> Sequence[Row]:
    """Return `rows`, each with a picture and a text. Raises InvalidInput for one without."""
    for row in rows:
        if row.image is None or not row.texts:
            lacks = "picture" if row.image is None else "text"
            raise InvalidInput(f"The row {row.id!r} of {of} has no {lacks}.")
    return rows


def _row(record: Mapping[str, object]) -> Row:
    image, texts = record["image"], record["texts"] or []
    assert image is None or isinstance(image, bytes)
    assert isinstance(texts, list)
    return Row(
        id=str(record["id"]),
        split=str(record["split"]),
        image=image,
        texts=tuple(texts),
        label=str(record.get("label") or ""),
        attributes=json.loads(str(record.get("attributes") or "{}")),
    )
