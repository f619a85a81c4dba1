"""What search promises beyond nearness: filters, words, variety, groups, pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.fakes import CountingModel, encoded, unit_vectors
from triptych.encoders.vectors import CallerVectors
from triptych.errors import InvalidInput
from triptych.filters import matches, parse_filter
from triptych.retrieval import ranking
from triptych.retrieval.collection import Collection
from triptych.types import Hit, Part

DIM = 16
NUM = 1_200
KINDS = ["auto", "flat", "hnsw", "hnsw_sq8", "ivf_sq8", "ivf_rabitq"]


def document(at: int) -> dict[str, Any]:
    return {"shop": f"s{at % 7}", "year": 2000 + at % 25, "tags": ["a", "b"][: at % 3], "rare": at}


VECTORS = unit_vectors(NUM, dim=DIM)
ITEMS = [
    {"id": f"{at:05}", "vector": VECTORS[at], "metadata": document(at), "text": f"number {at}"}
    for at in range(NUM)
]
QUERIES = unit_vectors(6, dim=DIM, seed=1)


@pytest.fixture(scope="module", params=KINDS)
def collection(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Collection]:
    """A saved index of most items; some came after it, some are gone since."""
    folder = tmp_path_factory.mktemp("search") / request.param
    model = CallerVectors("mine", DIM)
    with Collection.open(folder, embedder=model, index=request.param) as collection:
        collection.add(ITEMS[:1_000])
        collection.compact()
    with Collection.open(folder, embedder=model, index=request.param) as collection:
        collection.add(ITEMS[1_000:])
        collection.delete([item["id"] for item in ITEMS[::50]])
        yield collection


ALIVE = [at for at in range(NUM) if at % 50]


def truth(query: Any, filter: Any = None) -> list[str]:
    wanted = parse_filter(filter)
    alive = [
        at for at in ALIVE if wanted is None or matches(wanted, document(at), modality="vector")
    ]
    scores = (VECTORS[alive] @ query).tolist()
    return [
        f"{at:05}" for _, at in sorted(zip(scores, alive, strict=True), key=lambda p: (-p[0], p[1]))
    ]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


@pytest.mark.parametrize(
    "filter",
    [
        {"rare": 77},
        {"shop": "s3"},
        {"year": {"$gte": 2020}},
        "year < 2010 and not shop in ['s1', 's2']",
        {"tags": "b", "shop": {"$ne": "s0"}},
        {"$not": {"rare": {"$lt": 1100}}},
        {"nowhere": 1},
    ],
    ids=str,
)
def test_a_filter_loses_nothing(collection: Collection, filter: Any) -> None:
    expected = [truth(query, filter) for query in QUERIES]
    assert collection.count(filter) == len(expected[0])
    found = [ids(collection.search(vector=query, filter=filter)) for query in QUERIES]
    assert [len(hits) for hits in found] == [min(10, len(right)) for right in expected]
    overlap = [len(set(a) & set(b[:10])) for a, b in zip(found, expected, strict=True)]
    assert sum(overlap) >= 0.95 * sum(map(len, found))
    for hits, right in zip(found, expected, strict=True):
        assert set(hits) <= set(right)


def test_pages_join_without_a_seam(collection: Collection) -> None:
    for query in QUERIES[:3]:
        pages = [
            hit
            for offset in range(0, 400, 10)
            for hit in collection.search(vector=query, limit=10, offset=offset)
        ]
        assert len(set(ids(pages))) == len(pages) == 400
        assert len(set(ids(pages[:100])) & set(truth(query)[:100])) >= 95


def test_the_last_page_is_short_and_the_next_empty(collection: Collection) -> None:
    count = collection.count()
    assert len(collection.search(vector=QUERIES[0], limit=500, offset=count - 3)) == 3
    assert collection.search(vector=QUERIES[0], offset=count) == []


def test_a_threshold_cuts_exactly(collection: Collection) -> None:
    for query in QUERIES:
        everything = collection.search(vector=query, limit=NUM)
        assert len(everything) == len(ALIVE)
        cut = everything[40].score
        assert ids(collection.search(vector=query, limit=NUM, threshold=cut)) == ids(
            everything[:41]
        )
        assert len(collection.search(vector=query, limit=5, threshold=cut)) == 5


def test_group_by_shows_so_many_of_each(collection: Collection) -> None:
    hits = collection.search(vector=QUERIES[0], limit=14, group_by="shop", group_size=2)
    shops = [hit.metadata["shop"] for hit in hits]
    assert len(hits) == 14 and all(shops.count(shop) == 2 for shop in set(shops))
    best = {shop: next(hit for hit in hits if hit.metadata["shop"] == shop).id for shop in shops}
    for shop, id in best.items():
        assert id == truth(QUERIES[0], {"shop": shop})[0]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(collection.search(vector=QUERIES[0], limit=50, group_by="shop")) == 7
    assert len(collection.search(vector=QUERIES[0], limit=50, group_by="nowhere")) == 50


@pytest.mark.parametrize("more", [{}, {"hybrid": True}], ids=str)
def test_a_group_that_is_full_stays_so_on_later_pages(more: Any) -> None:
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        collection.add(
            {
                "id": str(at),
                "text": " ".join(["apple", "pear", "plum"][at % 3 :] * (1 + at % 4)) + f" {at}",
                "metadata": {"shop": at % 7},
            }
            for at in range(300)
        )
        wanted = {"limit": 2, "group_by": "shop", "group_size": 2, "diversity": 0.9, **more}
        hits = [
            hit
            for offset in range(0, 20, 2)
            for hit in collection.search("apple pear 7", offset=offset, **wanted)
        ]
    shops = [hit.metadata["shop"] for hit in hits]
    assert len(set(ids(hits))) == len(hits) == 14 and max(map(shops.count, shops)) == 2


def test_a_group_is_named_by_a_path_as_in_a_filter() -> None:
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        collection.add(
            {
                "id": str(at),
                "text": "apple",
                "metadata": {"maker": {"name": "ab"[at % 2], "big.one": at % 3}, "plain.x": at % 4},
            }
            for at in range(12)
        )
        for name, groups in (
            ("maker.name", 2), ("maker.big.one", 3), ("plain.x", 4), ("_modality", 1),
            ("maker", 6), ("maker.nothing", 12), ("plain", 12),
        ):  # fmt: skip
            assert len(collection.search("apple", group_by=name, limit=50)) == groups, name


def test_diversity_spreads(collection: Collection) -> None:
    def closeness(hits: list[Hit]) -> float:
        vectors = collection.vectors(ids(hits))
        return float((vectors @ vectors.T).mean())

    plain = collection.search(vector=QUERIES[0], limit=8)
    spread = collection.search(vector=QUERIES[0], limit=8, diversity=0.7)
    assert spread[0].score >= plain[0].score and closeness(spread) < closeness(plain)
    assert ids(collection.search(vector=QUERIES[0], limit=8, diversity=0)) == ids(plain)


@pytest.mark.parametrize(
    ("asked", "shown"), [({"group_by": "shop"}, 7), ({"offset": 95}, 10)], ids=["groups", "offset"]
)
def test_diversity_chooses_no_more_than_are_shown(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], shown: int
) -> None:
    chosen, choose = [], ranking._Marginal.choose

    def counted(self: ranking._Marginal, at: int) -> None:
        chosen.append(at)
        choose(self, at)

    monkeypatch.setattr(ranking._Marginal, "choose", counted)
    with Collection.open(":memory:", embedder=CallerVectors("mine", DIM)) as collection:
        collection.add(ITEMS)
        hits = collection.search(vector=QUERIES[0], diversity=0.5, limit=10, **asked)
    assert len(hits) == shown
    # each deeper look begins anew
    assert shown <= len(chosen) <= 3 * (shown + asked.get("offset", 0))


def test_facets_count(collection: Collection) -> None:
    found = collection.facets(["shop", "tags"], limit=3)
    assert [len(values) for values in found.values()] == [3, 2]
    assert sum(count for _, count in collection.facets("shop", limit=99)["shop"]) == len(ALIVE)
    filtered = collection.facets("shop", filter={"shop": "s2"})["shop"]
    assert filtered == [("s2", collection.count({"shop": "s2"}))]


def test_names_are_not_found_again(collection: Collection) -> None:
    some = f"{ALIVE[5]:05}"
    assert some not in ids(collection.search(like=some, limit=50))


@pytest.mark.parametrize(
    "arguments",
    [
        {"filter": {"year": {"$near": 3}}},
        {"filter": "year >>> 3"},
        {"filter": 5},
        {"hybrid": True},
        {"hybrid": 2},
        {"diversity": -1},
        {"diversity": "much"},
        {"group_by": "shop", "group_size": 0},
    ],
    ids=str,
)
def test_unusable_arguments_are_sentences(collection: Collection, arguments: Any) -> None:
    with pytest.raises(InvalidInput, match=r"[a-z]"):
        collection.search(vector=QUERIES[0], **arguments)


TEXTS = {
    "1": "a red bicycle leans on a wall",
    "2": "the part number is XK-4711",
    "3": "a green bicycle",
    "4": "深度学习在图像检索中的应用",
    "5": "a wall of stone",
}


@pytest.fixture
def texts() -> Iterator[Collection]:
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        collection.add({"id": id, "text": text} for id, text in TEXTS.items())
        yield collection


def test_hybrid_finds_the_word_itself(texts: Collection) -> None:
    hit = texts.search("4711", hybrid=0.9, limit=1)[0]
    assert hit.id == "2" and hit.words is not None and hit.found.endswith("+words")
    assert texts.search("检索", hybrid=1.0, limit=1)[0].id == "4"
    assert ids(texts.search("bicycle", hybrid=1.0, limit=2)) == ["3", "1"]
    assert texts.search("bicycle", limit=1)[0].words is None
    assert -1 <= hit.score <= 1, "the score stays a cosine"


def test_words_put_notes_in_order_without_pushing_out_pictures() -> None:
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        for at in range(12):
            shade = (0, 0, 200 + at)
            metadata = {"shop": "Nord"}
            collection.add({"id": f"p{at}", "image": encoded(shade), "metadata": metadata})
            collection.add({"id": f"n{at}", "text": f"a note of the day {at}"})
        collection.add({"id": "exact", "text": "a part of the order, XK-4711"})
        asked = [Part(text="a part of XK-4711"), Part(image=encoded((0, 0, 205)), weight=4)]
        plain = ids(collection.search(asked, limit=10))
        assert sum(id.startswith("p") for id in plain) == 10
        hits = ids(collection.search(asked, limit=10, hybrid=True))
        assert "exact" in hits[:2]
        assert [id for id in hits if id.startswith("p")] == plain[:9], "no other note comes in"


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_what_fits_the_words_equally_comes_by_id_whenever_it_was_written(share: float) -> None:
    names = [f"{at:02}" for at in range(30)]
    items = [{"id": id, "text": "red shoe"} for id in names]
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        collection.add(items[::-1])
        collection.upsert(items[3:5])
        assert ids(collection.search("red shoe", hybrid=share, limit=30)) == names
        pages = [
            collection.search("red shoe", hybrid=share, limit=7, offset=offset)
            for offset in range(0, 35, 7)
        ]
        assert [id for page in pages for id in ids(page)] == names


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_of_what_fits_the_words_equally_the_nearest_comes_first_however_much_it_is(
    share: float,
) -> None:
    shades = {f"{at:02}": encoded((0, 0, 100 + at)) for at in range(60)}
    items = [{"id": id, "text": "red shoe", "image": shade} for id, shade in shades.items()]
    asked = [Part(text="shoe"), Part(image=shades["57"], weight=9)]
    with Collection.open(":memory:", embedder=CountingModel()) as collection:
        collection.add(items)
        nearest = ids(collection.search(asked, limit=2))
        assert set(nearest) < set(list(shades)[20:]), "not among the first ten times two"
        assert ids(collection.search(asked, hybrid=share, limit=2)) == nearest
        collection.upsert(items[57:])
        assert ids(collection.search(asked, hybrid=share, limit=2)) == nearest


def test_hybrid_where_nothing_is_left(texts: Collection) -> None:
    assert texts.search("bicycle", hybrid=True, filter='shop = "none"') == []


def test_hybrid_forgets_what_is_deleted(texts: Collection, tmp_path: Path) -> None:
    texts.delete("2")
    assert all(hit.words is None for hit in texts.search("4711", hybrid=True))
    texts.upsert([{"id": "1", "text": "nothing of the kind"}])
    assert [hit.id for hit in texts.search("bicycle", hybrid=True) if hit.words] == ["3"]


def test_equal_vectors_by_id_on_every_page(tmp_path: Path) -> None:
    same = np.tile(VECTORS[0], (300, 1))
    names = [f"{at:03}" for at in np.random.default_rng(0).permutation(300)]
    model = CallerVectors("mine", DIM)
    with Collection.open(tmp_path / "c", embedder=model, index="hnsw") as collection:
        collection.add({"id": id, "vector": v} for id, v in zip(names, same, strict=True))
        collection.compact()
        found = [
            hit.id
            for offset in range(0, 300, 20)
            for hit in collection.search(vector=same[0], limit=20, offset=offset)
        ]
        assert found == sorted(names)
