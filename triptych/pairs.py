"""Pictures with texts in a Parquet file: what is measured on, and learnt from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from triptych.errors import InvalidInput

_NEEDED = ("id", "split", "image", "texts")
_FURTHER = ("label", "attributes")  # where there are any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture, or where there is none some text, with its texts."""

    id: str
    split: str
    image: bytes | None
    texts: tuple[str, ...]
    label: str
    attributes: Mapping[str, object]


def read_file(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file, a row group at a time.

    Its columns are `id`, `split`, `image` (encoded bytes), `texts` (a list of strings), and where
    there are any `label` (a string) and `attributes` (a JSON object, as a string). Raises
    InvalidInput for a file of another kind.
    """
    if not path.is_file():
        raise InvalidInput(f"{path} is not a file, expected a Parquet file.")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError):
        raise InvalidInput(f"{path} is not a readable Parquet file.") from None
    there = file.schema_arrow.names
    if missing := [name for name in _NEEDED if name not in there]:
        raise InvalidInput(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            hint=f"Expected {', '.join(_NEEDED)}, and label and attributes where there are any.",
        )
    columns = [name for name in (*_NEEDED, *_FURTHER) if name in there]
    for group in range(file.num_row_groups):
        for record in file.read_row_group(group, columns=columns).to_pylist():
            yield _row(record, path)


def write_file(rows: Iterable[Row], path: Path) -> None:
    """Write rows to a Parquet file that `read_file` reads; folders that are missing are made."""
    records = [
        {
            "id": row.id,
            "split": row.split,
            "image": row.image,
            "texts": list(row.texts),
            "label": row.label,
            "attributes": json.dumps(dict(row.attributes), ensure_ascii=False),
        }
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(records), path, compression="zstd")


def _row(record: Mapping[str, Any], path: Path) -> Row:
    image, texts = record["image"], record["texts"] or []
    if not isinstance(image, bytes | None) or not isinstance(texts, list):
        raise InvalidInput(f"{path} has no encoded bytes as image, or no list of strings as texts.")
    return Row(
        id=str(record["id"]),
        split=str(record["split"]),
        image=image,
        texts=tuple(map(str, texts)),
        label=str(record.get("label") or ""),
        attributes=_attributes(record, path),
    )


def _attributes(record: Mapping[str, Any], path: Path) -> dict[str, object]:
    said = record.get("attributes") or "{}"
    try:
        found = json.loads(said)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(
            f"The attributes of {record['id']!r} in {path} are {said!r}, expected a JSON object."
        )
    return found
