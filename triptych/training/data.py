"""The sets of pictures with text: read once, kept as plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from triptych.errors import InvalidInput
from triptych.pairs import Row, read_file

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
    rows = [row for row in read_file(path) if row.split in splits]
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
