"""The set `clipart`: drawings of the Open Clip Art Library, as two packages of Debian hold them.

All are in the public domain. A picture's texts are its title and its keywords, which lie in the
vector drawing; its pixels are those of the PNG of the same name.

    apt-get download openclipart-png openclipart-svg
    for package in openclipart-*.deb; do dpkg-deb -x $package clipart; done
    python -m triptych.training.clipart clipart/usr/share/openclipart --out DATA/clipart.parquet

Some of the demo's stamps are drawings of the same library. `--unlike DIR` leaves out what the model
in the package finds near to a picture of that folder, so that the folder stays unseen.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from zlib import crc32

from PIL import Image, ImageStat

from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel
from triptych.encoders.pictures.colour import flattened
from triptych.pairs import Row, write_file
from triptych.types import Item

SIDE = 176  # of the longer side, in pixels
# hundreds of like things, whose titles tell nothing: stars, playing cards, one theme of icons
LEFT_OUT = (
    "buttons", "computer/buttons", "computer/folders", "computer/icons", "logos",
    "people/clothing/pantyhose", "recreation/games/cards", "shapes", "signs_and_symbols/led",
    "signs_and_symbols/map_symbols", "special", "transportation/aiga-symbols", "unsorted",
)  # fmt: skip
MOST_BYTES = 1_000_000  # what is larger is a map in hundreds of megapixels
NEAR = 0.85  # cosine; redrawn copies were found down to 0.88
FAINT = 4.0  # standard deviation of the brightness, of 255
MOST_OF_A_TITLE = 6  # a title that more pictures have is that of a collection
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_NO_KEYWORD = re.compile(r"^hash|unsorted|_|clip ?art|externalsource|\S{18}")
_SIGNS = re.compile(r"[\W\d_]+")
_NOT_A_NAME = re.compile(r"\b(clip ?arts?|icons?|symbols?|submission|sibmission|svg)\b", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A picture and what is said of it."""

    path: str  # of the PNG, below the folder of all
    title: str
    keywords: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="triptych.training.clipart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # commands stay lines
    )
    parser.add_argument("library", type=Path, help="the folder that holds png and svg")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file")
    parser.add_argument("--unlike", type=Path, help="a folder of pictures that are to stay unseen")
    args = parser.parse_args()
    rows = rows_of(args.library)
    if args.unlike is not None:
        rows = unlike(rows, folder=args.unlike)
    write_file(rows, args.out)
    sys.stdout.write(f"{len(rows):,} drawings in {args.out}\n")


def rows_of(library: Path) -> list[Row]:
    """Return a row for every drawing of which something is said, blank ones left out."""
    rows = [_row(library / "png", drawing) for drawing in drawings(library)]
    return [row for row in rows if row.image]


def unlike(rows: Sequence[Row], *, folder: Path) -> list[Row]:
    """Return the rows whose picture is near to none under `folder`."""
    model = OnnxModel.load(DEFAULT_FOLDER)
    seen_SM = model.embed([Item(id=str(p), image=p) for p in sorted(folder.rglob("*.png"))])
    drawn_NM = model.embed([Item(id=row.id, image=row.image) for row in rows])
    nearest_N = (drawn_NM @ seen_SM.T).max(axis=1)
    return [row for row, cosine in zip(rows, nearest_N, strict=True) if cosine < NEAR]


def drawings(library: Path) -> list[Drawing]:
    """Return the drawings with a text, by path; raises OSError for a file that cannot be read."""
    png, svg = library / "png", library / "svg"
    paths = sorted(
        path.relative_to(png) for path in png.rglob("*.png") if path.stat().st_size <= MOST_BYTES
    )
    said = [_said(path, svg) for path in paths if not path.as_posix().startswith(LEFT_OUT)]
    common = Counter(drawing.title for drawing in said)
    own = [
        drawing if common[drawing.title] <= MOST_OF_A_TITLE else replace(drawing, title="")
        for drawing in said
    ]
    return [drawing for drawing in own if drawing.title or len(drawing.keywords) > 1]


def _said(path: Path, svg: Path) -> Drawing:
    titles, keywords = [], []
    # the file is closed here: the parser, left early, keeps what it opened itself
    with (svg / path).with_suffix(".svg").open("rb") as drawing, suppress(ElementTree.ParseError):
        # Debian's own files, whose checksum apt has seen to; some are no XML after all
        for _, element in ElementTree.iterparse(drawing):  # noqa: S314
            if element.tag == f"{_DUBLIN_CORE}title":
                titles.append(element.text or "")
            elif element.tag == f"{_RDF}li":
                keywords.append(element.text or "")
            elif element.tag.endswith("}metadata"):
                break
    title = next(iter(titles), "")  # the others are names of who drew and published it
    kept = [_words(word) for word in keywords if not _NO_KEYWORD.search(word)]
    return Drawing(
        path=path.as_posix(),
        title="" if _NOT_A_NAME.search(title) else _words(title),
        keywords=tuple(dict.fromkeys(word for word in kept if word)),
    )


def _words(text: str) -> str:
    """The words without numbers and signs; nothing where none is left."""
    words = _SIGNS.sub(" ", text.replace("(B and W)", "black and white")).strip()
    return words if len(words) > 2 else ""


def _row(png: Path, drawing: Drawing) -> Row:
    texts = [text for text in (drawing.title, ", ".join(drawing.keywords)) if text]
    label = texts[0].lower()
    return Row(
        id=drawing.path,
        split="dev" if crc32(label.encode()) % 10 == 0 else "train",  # a title is in one of them
        image=_small(png / drawing.path),
        texts=tuple(texts),
        label=label,
        attributes={},
    )


def _small(path: Path) -> bytes:
    """The picture on its ground, as WebP; nothing where it is blank."""
    with Image.open(path) as picture:
        picture.thumbnail((SIDE, SIDE))
        rgba = picture.convert("RGBA")
    shown = flattened(rgba.convert("RGB"), rgba.getchannel("A"))
    if ImageStat.Stat(shown.convert("L")).stddev[0] < FAINT:
        return b""
    file = io.BytesIO()
    shown.save(file, "WEBP", quality=85)
    return file.getvalue()


if __name__ == "__main__":
    main()
