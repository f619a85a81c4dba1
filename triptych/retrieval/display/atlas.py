"""A map of a collection: what is alike lies together, and no picture covers another.

Letters: N items, M embedding width, G cells of the grid, B directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.collection import AnyFilter, Collection
from triptych.types import Matrix

_ROOM = 1.5  # cells per picture: below 1.2 clusters blur into one block, above 2 it is mostly paper
_FIELDS = 12  # of metadata, that are named
_SIDE = 3600  # pixels of the map's longer side, at most
_BLOCK, _ROUNDS = 8, 24  # directions followed at once, and how often they are turned
_NOTHING: Matrix = np.zeros((0, 2), dtype=np.float32)
_PAPER, _NO_PICTURE = "#ffffff", "#dee2e6"


def atlas(emb_NM: Matrix, pictures: Sequence[Image.Image | None]) -> Image.Image:
    """Return the map, RGB; an item without a picture is a grey square.

    Raises InvalidInput where vectors and pictures are not as many.
    """
    if len(emb_NM) != len(pictures):
        raise InvalidInput(f"Got {len(emb_NM)} vectors and {len(pictures)} pictures.")
    cells_N2, num_side = _laid_out(emb_NM)
    cell = int(np.clip(_SIDE // num_side, 24, 128))
    sheet = Image.new("RGB", (num_side * cell, num_side * cell), _PAPER)
    for (column, row), picture in zip(cells_N2.tolist(), pictures, strict=True):
        sheet.paste(_square(picture, cell - 2), (column * cell + 1, row * cell + 1))
    return sheet


def chart(collection: Collection, limit: int, filter: AnyFilter | None = None) -> dict[str, Any]:
    """Return at most `limit` items' cells (column, row) on a grid of `side` by `side`, none twice.

    With them their ids, texts and whether there is a picture, how many items match in all, and the
    metadata fields that were seen: what somebody needs who draws the map.
    """
    while True:
        kept = [one for one in collection.get(collection.sample(limit, filter)) if one is not None]
        try:
            emb_NM = collection.vectors([one.id for one in kept]) if kept else _NOTHING
            break
        except NotFound:  # one was deleted meanwhile
            continue
    cells_N2, side = _laid_out(emb_NM)
    fields = {name for one in kept for name, value in one.metadata.items() if _is_plain(value)}
    return {
        "count": collection.count(filter),
        "side": side,
        "ids": [one.id for one in kept],
        "texts": [one.text and one.text[:200] for one in kept],
        "has_image": [one.modality in ("image", "both") for one in kept],
        "cells": cells_N2.tolist(),
        "fields": sorted(fields)[:_FIELDS],
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
    )


def _laid_out(emb_NM: Matrix) -> tuple[NDArray[np.int64], int]:
    """Return cells_N2 (column, row) of a square grid, and the cells of a side of it."""
    num_side = max(1, int(np.ceil(np.sqrt(_ROOM * len(emb_NM)))))
    return grid_cells(plane(emb_NM), num_side=num_side), num_side


def plane(emb_NM: Matrix) -> NDArray[np.float64]:
    """Return xy_N2 in 0..1: the two main directions, half as they are and half as ranks."""
    num_items = len(emb_NM)
    if num_items < 2:
        return np.full((num_items, 2), 0.5)
    centred_NM = np.asarray(emb_NM, dtype=np.float64) - np.mean(emb_NM, axis=0)
    axes_M2 = _main_directions(centred_NM)
    strongest_2 = np.abs(axes_M2).argmax(axis=0)
    axes_M2 = axes_M2 * np.sign(axes_M2[strongest_2, np.arange(axes_M2.shape[1])])
    xy_N2 = np.zeros((num_items, 2))
    xy_N2[:, : axes_M2.shape[1]] = centred_NM @ axes_M2
    low, high = xy_N2.min(axis=0), xy_N2.max(axis=0)
    spread_N2 = (xy_N2 - low) / np.maximum(high - low, 1e-12)
    ranks_N2 = xy_N2.argsort(axis=0, kind="stable").argsort(axis=0) / (num_items - 1)
    return np.asarray((spread_N2 + ranks_N2) / 2)


def _main_directions(centred_NM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the two directions in which the rows differ most, by subspace iteration.

    All M eigenvectors of M x M would be exact, but their threads wait for one another: seconds
    where other programs are busy, for two directions of hundreds.
    """
    width = min(_BLOCK, *centred_NM.shape)
    basis_MB = np.random.default_rng(0).standard_normal((centred_NM.shape[1], width))
    for _ in range(_ROUNDS):
        basis_MB = np.linalg.qr(centred_NM.T @ (centred_NM @ basis_MB))[0]
    spread_NB = centred_NM @ basis_MB
    turn_BB = np.linalg.eigh(spread_NB.T @ spread_NB)[1]
    return np.asarray(basis_MB @ turn_BB[:, ::-1][:, :2])


def grid_cells(xy_N2: NDArray[np.float64], *, num_side: int) -> NDArray[np.int64]:
    """Return cells_N2 (column, row), a free one near each point; the centre goes first."""
    wanted_N2 = xy_N2 * (num_side - 1)
    grid_G2 = np.stack(np.meshgrid(np.arange(num_side), np.arange(num_side)), -1).reshape(-1, 2)
    is_taken_G = np.zeros(len(grid_G2))
    cells_N2 = np.zeros((len(xy_N2), 2), dtype=np.int64)
    from_centre_N = ((xy_N2 - 0.5) ** 2).sum(axis=1)
    for point in from_centre_N.argsort(kind="stable"):
        distance_G = ((grid_G2 - wanted_N2[point]) ** 2).sum(axis=1) + is_taken_G
        nearest = int(distance_G.argmin())
        is_taken_G[nearest] = np.inf
        cells_N2[point] = grid_G2[nearest]
    return cells_N2


def _square(picture: Image.Image | None, side: int) -> Image.Image:
    if picture is None:
        return Image.new("RGB", (side, side), _NO_PICTURE)
    return ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
