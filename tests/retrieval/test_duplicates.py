from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.fakes import BLUE, DIM, GREEN, RED, CountingModel, encoded, paint, unit_vectors
from triptych.encoders.vectors import CallerVectors
from triptych.errors import InvalidInput
from triptych.index.snapshot import Snapshots
from triptych.retrieval.builder import build_index
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import INDEX, open_store
from triptych.retrieval.ingest.run import index_folder
from triptych.retrieval.live import LiveIndex
from triptych.retrieval.maintenance.duplicates import Group, duplicates, similar
from triptych.types import Item, Matrix


def ids(groups: list[Group]) -> list[list[str]]:
    return [sorted(member.id for member in group.members) for group in groups]


def fill(folder: Path, vectors_NM: Matrix, texts: list[str | None] | None = None) -> None:
    model = CallerVectors("own", vectors_NM.shape[1])
    with Collection.open(folder, embedder=model) as collection:
        collection.add(
            Item(id=f"{at}", vector=vector, text=texts[at] if texts else None)
            for at, vector in enumerate(vectors_NM)
        )


def find(folder: Path, threshold: float) -> tuple[list[Group], list[Group]]:
    store = open_store(folder)
    live = LiveIndex(store, Snapshots(folder / INDEX))
    found = duplicates(store), similar(store, live, threshold)
    store.close()
    return found


def by_hand(vectors_NM: Matrix, threshold: float) -> list[list[str]]:
    """Connected components, the plain way."""
    near_NN = vectors_NM.astype(np.float64) @ vectors_NM.T.astype(np.float64) >= threshold
    left, groups = set(range(len(vectors_NM))), []
    while left:
        group, waiting = set(), [min(left)]
        while waiting:
            at = waiting.pop()
            if at in left:
                left.discard(at)
                group.add(at)
                waiting += np.flatnonzero(near_NN[at]).tolist()
        if len(group) > 1:
            groups.append(sorted(str(at) for at in group))
    return groups


def clusters(num: int, *, spread: float, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    centres = unit_vectors(num // 4, seed=seed)
    wide = centres[rng.integers(0, len(centres), num)] + spread * rng.standard_normal((num, DIM))
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def test_pictures_are_the_same_by_their_files(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name, colour in (("a", RED), ("b", GREEN), ("sub/a2", RED), ("c", BLUE), ("sub/c", BLUE)):
        paint(photos / f"{name}.png", colour)
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        index_folder(collection, photos)
        collection.add([{"id": "x", "text": "words"}, {"id": "y", "text": "words"}])
        collection.add([{"id": "z", "text": "other words"}])
    exact, alike = find(tmp_path / "c", 0.999)
    red = sorted([str(photos / "a.png"), str(photos / "sub/a2.png")])
    blue = sorted([str(photos / "c.png"), str(photos / "sub/c.png")])
    assert sorted(ids(exact)) == sorted([red, blue, ["x", "y"]])
    assert alike == []
    assert {member.uri for group in exact for member in group.members} >= {red[0], blue[1]}


def test_a_picture_is_the_same_however_it_came_and_encoded_anew_only_similar(
    tmp_path: Path,
) -> None:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        collection.add([{"id": "sent", "image": encoded(RED)}])
        collection.add([{"id": "file", "image": paint(tmp_path / "red.png", RED)}])
        collection.add([{"id": "bmp", "image": encoded(RED, format="BMP")}])
    exact, alike = find(tmp_path / "c", 0.999)
    assert ids(exact) == [["file", "sent"]]
    assert ids(alike) == [["bmp", "sent"]]


def test_vectors_are_the_same_with_the_same_text_only(tmp_path: Path) -> None:
    vectors_NM = unit_vectors(6)[[0, 1, 0, 2, 0, 1]]
    fill(tmp_path / "c", vectors_NM, ["a", None, "b", None, "a", None])
    exact, alike = find(tmp_path / "c", 0.99)
    assert ids(exact) == [["0", "4"], ["1", "5"]]
    assert ids(alike) == [["0", "2"]] and [m.score for m in alike[0].members] == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("threshold", [0.9, 0.97])
def test_similar_groups_are_those_found_by_hand(
    tmp_path: Path, kind: str, threshold: float
) -> None:
    vectors_NM = clusters(1500, spread=0.04, seed=3)
    fill(tmp_path / "c", vectors_NM)
    store = open_store(tmp_path / "c")
    store.lock()
    build_index(store, Snapshots(tmp_path / "c" / INDEX), (kind,))
    store.close()
    exact, alike = find(tmp_path / "c", threshold)
    expected = [sorted(group) for group in by_hand(vectors_NM, threshold)]
    assert len(expected) > 50 and exact == []
    if kind == "flat":
        assert ids(alike) == expected
    else:  # an approximate index may miss a link
        same = sum(group in expected for group in ids(alike))
        assert same >= 0.95 * len(expected)
    scores = [member.score for group in alike for member in group.members]
    assert min(scores) >= np.float32(threshold)


def test_thousands_alike_are_one_group(tmp_path: Path) -> None:
    vectors_NM = clusters(4, spread=0.0, seed=1)[:1].repeat(3000, axis=0)
    vectors_NM = vectors_NM + 0.001 * unit_vectors(3000, seed=2)
    vectors_NM /= np.linalg.norm(vectors_NM, axis=1, keepdims=True)
    fill(tmp_path / "c", vectors_NM)
    exact, alike = find(tmp_path / "c", 0.97)
    assert exact == [] and [len(group.members) for group in alike] == [3000]


def test_an_empty_collection_has_none(tmp_path: Path) -> None:
    Collection.open(tmp_path / "c", embedder=CountingModel()).close()
    assert find(tmp_path / "c", 0.97) == ([], [])


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
def test_a_threshold_is_a_cosine_above_zero(tmp_path: Path, threshold: float) -> None:
    Collection.open(tmp_path / "c", embedder=CountingModel()).close()
    with pytest.raises(InvalidInput, match="threshold"):
        find(tmp_path / "c", threshold)
