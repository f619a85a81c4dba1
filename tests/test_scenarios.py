"""What the scenarios count with, on what can be counted by hand."""

import numpy as np

from benchmarks.scenarios.catalogue import Product, wishes
from benchmarks.scenarios.clicks import LIKING, click_rate
from benchmarks.scenarios.shop import Found


def test_wishes_can_be_fulfilled_and_are_of_another_colour() -> None:
    stock = [
        Product(str(at), b"", "", kind, colour)
        for at, (kind, colour) in enumerate(
            [("Tops", "Red"), ("Tops", "Blue"), ("Tops", ""), ("Belts", "Red"), ("Ties", "Multi")]
        )
    ]
    asked = wishes(stock, 20, seed=0)
    assert asked == wishes(stock, 20, seed=0)
    assert {(wish.product.id, wish.colour) for wish in asked} == {("0", "Blue"), ("1", "Red")}


def test_a_hit_is_right_only_where_one_product_is_right_in_both() -> None:
    found = Found(np.array([[True, False], [True, True]]), np.array([[False, True], [False, True]]))
    assert found.hit_rate() == 0.5 and found.share() == 0.25


def test_the_customer_looks_less_at_later_ranks() -> None:
    none, first, last = (np.zeros((20_000, 10), dtype=bool) for _ in range(3))
    first[:, 0] = last[:, 9] = True
    rates = {
        name: click_rate(right, right, seed=3)
        for name, right in (("none", none), ("first", first), ("last", last))
    }
    looks = 1 / np.arange(1, 11)
    idle = 1 - np.prod(1 - looks * LIKING["neither"])
    one = 1 - np.prod(1 - looks[1:] * LIKING["neither"])
    assert abs(rates["none"] - idle) < 0.01
    assert abs(rates["first"] - (1 - (1 - LIKING["both"]) * (1 - one))) < 0.01
    assert rates["none"] < rates["last"] < rates["first"]
