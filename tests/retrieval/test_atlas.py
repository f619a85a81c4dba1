import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.retrieval.fakes import CountingModel
from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.retrieval.display.atlas import atlas, chart, grid_cells, plane


def vectors(num: int, *, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(num).standard_normal((num, dim)).astype(np.float32)


@given(st.integers(0, 80), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_no_two_items_share_a_cell(num: int, dim: int) -> None:
    num_side = int(np.ceil(np.sqrt(num))) or 1
    cells_N2 = grid_cells(plane(vectors(num, dim=dim)), num_side=num_side)
    assert len({tuple(cell) for cell in cells_N2.tolist()}) == num
    assert num == 0 or (cells_N2.min() >= 0 and cells_N2.max() < num_side)


def test_two_groups_lie_apart() -> None:
    noise = vectors(40) * 0.05
    noise[:20, 0] += 1.0
    noise[20:, 0] -= 1.0
    xy_N2 = plane(noise)
    assert abs(xy_N2[:20, 0].mean() - xy_N2[20:, 0].mean()) > 0.5
    cells_N2 = grid_cells(xy_N2, num_side=8)
    columns = cells_N2[:20, 0], cells_N2[20:, 0]
    assert max(map(np.max, columns[:1])) < columns[1].min() or columns[1].max() < columns[0].min()


def test_it_is_the_same_again() -> None:
    emb_NM, pictures = vectors(30), [Image.new("RGB", (9, 5), (8 * at, 0, 0)) for at in range(30)]
    assert atlas(emb_NM, pictures).tobytes() == atlas(emb_NM, pictures).tobytes()


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_few_items_are_a_map_too(num: int) -> None:
    emb_NM = np.ones((num, 4), dtype=np.float32)
    assert atlas(emb_NM, [None] * num).mode == "RGB"


def test_every_picture_is_seen() -> None:
    reds = [Image.new("RGB", (40, 30), (200, at, 0)) for at in range(50)]
    seen = {colour for _, colour in atlas(vectors(50), reds).getcolors(2**24) or []}
    assert seen == {(200, at, 0) for at in range(50)} | {(255, 255, 255)}


def test_vectors_and_pictures_are_as_many() -> None:
    with pytest.raises(InvalidInput, match="3 vectors and 2 pictures"):
        atlas(vectors(3), [None, None])


def test_a_chart_gives_each_item_a_cell_of_its_own_and_samples_evenly() -> None:
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        assert chart(collection, 10) == {
            "count": 0, "side": 1, "ids": [], "texts": [], "has_image": [], "cells": [], "fields": [],
        }  # fmt: skip
        notes = [{"id": str(at), "text": f"note {at}", "metadata": {"n": at}} for at in range(30)]
        collection.add(notes)
        whole, some = chart(collection, 100), chart(collection, 4)
        few = chart(collection, 2, "n >= 20")
    assert whole["ids"] == [str(at) for at in range(30)] and whole["fields"] == ["n"]
    assert len({tuple(cell) for cell in whole["cells"]}) == 30
    assert max(max(cell) for cell in whole["cells"]) < whole["side"]
    assert (some["count"], some["ids"]) == (30, ["0", "10", "19", "29"])
    assert (few["count"], few["ids"], len(few["cells"])) == (10, ["20", "29"], 2)
