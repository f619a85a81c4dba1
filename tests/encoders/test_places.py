"""Which places are hidden together, against a loop."""

import numpy as np
import pytest

from triptych.encoders.places import left_over


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (4, 6), (3, 5), (4, 1)])
def test_each_place_is_hidden_once_with_its_neighbours(rows: int, columns: int) -> None:
    found = {}
    for hidden_N, kept_NK in left_over(rows, columns):
        for place, kept_K in zip(hidden_N.tolist(), kept_NK.tolist(), strict=True):
            assert place not in found
            found[place] = set(kept_K)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        near = {
            y * columns + x
            for y in range(rows)
            for x in range(columns)
            if abs(y - row) <= 1 and abs(x - column) <= 1
        }
        assert found[place] == set(np.arange(rows * columns)) - near
