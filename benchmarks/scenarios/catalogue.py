"""The shop's products, and customers who want one of them in another colour."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

from benchmarks.common import DATA
from triptych.training.data import read_rows

NO_COLOUR = {"", "NA", "Multi"}


@dataclass(frozen=True, slots=True)
class Product:
    id: str
    image: bytes
    title: str
    kind: str
    colour: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A product, and the colour in which the customer wants one of its kind."""

    product: Product
    colour: str


def products(split: str, count: int) -> list[Product]:
    """Return the first `count` products of a split, in the file's order."""
    found = []
    for row in read_rows(DATA / "fashion.parquet", splits=[split]):
        if row.image is not None:
            colour = str(row.attributes.get("baseColour") or "")
            found.append(Product(row.id, row.image, " ".join(row.texts), row.label, colour))
    return found[:count]


def wishes(stock: list[Product], count: int, *, seed: int) -> list[Wish]:
    """Return wishes that the stock can fulfil: it has the kind in the colour, which is another."""
    draw = random.Random(seed)
    colours = defaultdict(set)
    for product in stock:
        colours[product.kind].add(product.colour)
    found: list[Wish] = []
    while len(found) < count:
        product = draw.choice(stock)
        others = sorted(colours[product.kind] - NO_COLOUR - {product.colour})
        if others and product.colour not in NO_COLOUR:
            found.append(Wish(product, draw.choice(others)))
    return found
