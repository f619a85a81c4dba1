"""Many threads, one model: bit for bit the rows of each alone, and each error its owner's."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.retrieval.fakes import BLUE, RED, encoded, paint
from triptych import deadline
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.onnx import OnnxModel
from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.segments import Segment
from triptych.errors import InvalidInput, NotAvailable, Overloaded, PictureError, TimedOut
from triptych.retrieval.batching import BatchingConfig, BatchingModel, batched
from triptych.retrieval.collection import Collection
from triptych.retrieval.late import Pairs, reranker_of
from triptych.retrieval.query import build_query
from triptych.retrieval.waiting import Request, Waiting
from triptych.types import Item, Matrix

DIM = 16


class Gate(HashingEncoder):
    """Notes each call, and waits inside it until it is let through."""

    def __init__(self) -> None:
        super().__init__(dim=DIM)
        self.calls: list[list[str]] = []
        self.threads: set[str] = set()
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def embed(self, items: Sequence[Item]) -> Matrix:
        self.calls.append([item.id for item in items])
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        assert self.open.wait(10)
        for item in items:
            if item.text is not None and item.text.startswith("bad"):
                raise InvalidInput(f"{item.id} is bad")
        return super().embed(items)


class Crowd:
    """Threads that ask while the model is busy with the first of them."""

    def __init__(self, config: BatchingConfig, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()
        self.model = BatchingModel(self.gate, config)
        self.pool = ThreadPoolExecutor(64)
        self.answers: list[Future[Matrix]] = []

    def ask(self, *items: Item, seconds: float | None = None) -> Future[Matrix]:
        """Return the answer to come, when the request waits or is at work."""
        before = self.model.load.requests + len(self.gate.calls)
        self.answers.append(self.pool.submit(self._embed, items, seconds))
        until = time.monotonic() + 5
        while self.model.load.requests + len(self.gate.calls) == before:
            assert time.monotonic() < until
            if self.answers[-1].done():
                break
            time.sleep(0.0005)
        return self.answers[-1]

    def occupy(self) -> None:
        """Make the model busy."""
        self.ask(text("first"))
        assert self.gate.entered.acquire(timeout=5)

    def _embed(self, items: Sequence[Item], seconds: float | None) -> Matrix:
        if seconds is None:
            return self.model.embed(items)
        with deadline.within(seconds):
            return self.model.embed(items)


@pytest.fixture
def crowd() -> Iterator[Callable[..., Crowd]]:
    made: list[Crowd] = []

    def make(gate: Gate | None = None, **settings: float) -> Crowd:
        made.append(Crowd(BatchingConfig(**settings), gate))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.gate.open.set()
        one.model.close()
        one.pool.shutdown()


def text(id: str, words: str | None = None) -> Item:
    return Item(id=id, text=words or id)


def test_what_comes_while_the_model_is_busy_shares_a_call(crowd: Callable[..., Crowd]) -> None:
    many = crowd()
    many.occupy()
    for at in range(20):
        many.ask(text(f"q{at}"))
    many.gate.open.set()
    alone = HashingEncoder(dim=DIM)
    for answer, id in zip(many.answers, ["first", *(f"q{at}" for at in range(20))], strict=True):
        assert (answer.result(5) == alone.embed([text(id)])).all()
    assert many.gate.calls == [["first"], [f"q{at}" for at in range(20)]]
    assert many.gate.threads == {"triptych-model"}


def test_a_call_keeps_the_budget_and_likes_its_like(crowd: Callable[..., Crowd]) -> None:
    many = crowd(budget=100, overhead=2)
    many.occupy()
    for at in range(3):
        many.ask(text(f"long{at}", "x" * 160))  # 42 tokens
        many.ask(text(f"short{at}", "x" * 8))  # 4
    many.ask(text("endless", "x" * 4000))
    many.gate.open.set()
    for answer in many.answers:
        answer.result(5)
    assert many.gate.calls[1:] == [
        ["long0", "long1"], ["short0", "short1", "short2"], ["long2"], ["endless"],
    ]  # fmt: skip


def test_a_thousand_items_do_not_keep_one_from_its_turn(crowd: Callable[..., Crowd]) -> None:
    many = crowd(budget=40)
    many.occupy()
    many.ask(*(text(f"bulk{at:02}", "x" * 32) for at in range(40)))
    late = many.ask(text("late", "x" * 32))
    many.gate.open.set()
    late.result(5)
    assert "late" in many.gate.calls[1]
    many.answers[1].result(5)
    assert sum(len(call) for call in many.gate.calls) == 42


class Reader(Gate):
    """Reads a text of so many letters in segments of 256 tokens."""

    def segmented(self, text: str, *, pictured: bool) -> list[Segment]:
        return [Segment.of([at] * 256) for at in range(len(text) // 1000)]

    def embed(self, items: Sequence[Item]) -> Matrix:
        named = [
            replace(item, text=f"segment {item.text.ids[0]}")
            if isinstance(item.text, Segment)
            else item
            for item in items
        ]
        return super().embed(named)


def test_a_long_text_gives_way_between_its_segments(crowd: Callable[..., Crowd]) -> None:
    many = crowd(Reader(), share=1024)
    many.occupy()
    long = many.ask(text("short"), text("long", "x" * 5000))
    late = many.ask(text("late"))
    many.gate.open.set()
    late.result(5)
    rows = long.result(5)
    assert many.gate.calls[1:] == [["short", "late"], ["long"] * 3, ["long"] * 2]
    alone = HashingEncoder(dim=DIM)
    assert (rows[0] == alone.embed([text("short")])[0]).all()
    mean_M = alone.embed_texts([f"segment {at}" for at in range(5)]).sum(axis=0)
    np.testing.assert_allclose(rows[1], mean_M / np.linalg.norm(mean_M), atol=1e-6)


def test_a_long_text_with_a_picture_gives_way_as_well(crowd: Callable[..., Crowd]) -> None:
    """It was one call, during which nobody else was answered."""
    red = encoded(RED)
    many = crowd(Reader(), share=1024)
    many.occupy()
    long = many.ask(Item(id="both", text="x" * 5000, image=red))
    late = many.ask(text("late"))
    many.gate.open.set()
    late.result(5)
    rows = long.result(5)
    _, first, *others = many.gate.calls
    assert "late" in first and max(map(len, [first, *others])) <= 3
    assert sum(call.count("both") for call in (first, *others)) == 5
    alone = HashingEncoder(dim=DIM)
    rows_5M = alone.embed_both([f"segment {at}" for at in range(5)], [load_picture(red)] * 5)
    mean_M = rows_5M.sum(axis=0)
    np.testing.assert_allclose(rows[0], mean_M / np.linalg.norm(mean_M), atol=1e-6)


def test_the_error_of_one_is_nobody_elses(crowd: Callable[..., Crowd]) -> None:
    many = crowd()
    many.occupy()
    asked = [
        many.ask(text(f"{at}", "bad" if at in (3, 4, 11) else f"good {at}")) for at in range(16)
    ]
    many.gate.open.set()
    for at, answer in enumerate(asked):
        if at in (3, 4, 11):
            with pytest.raises(InvalidInput, match=f"^{at} is bad"):
                answer.result(5)
        else:
            assert answer.result(5).shape == (1, DIM)


def test_a_request_with_a_bad_item_fails_as_a_whole_and_leaves_nothing_behind(
    crowd: Callable[..., Crowd],
) -> None:
    many = crowd(budget=40)
    many.occupy()
    bad = many.ask(*(text(f"{at}", "bad" + "x" * 29) for at in range(30)))
    many.gate.open.set()
    with pytest.raises(InvalidInput):
        bad.result(5)
    assert many.model.load.tokens == 0
    assert sum(len(call) for call in many.gate.calls) < 30


def test_a_broken_picture_never_reaches_the_others(crowd: Callable[..., Crowd]) -> None:
    many = crowd()
    many.occupy()
    whole = many.ask(Item(id="whole", image=encoded(RED)))
    with pytest.raises(PictureError) as caught:
        many.model.embed([Item(id="broken", image=encoded(RED)[:60])])
    assert caught.value.code.startswith("picture_")
    many.gate.open.set()
    whole.result(5)
    assert many.gate.calls == [["first"], ["whole"]]


def test_beyond_the_bound_it_refuses_and_says_when_to_come_again(
    crowd: Callable[..., Crowd],
) -> None:
    many = crowd(most=30)
    many.occupy()
    for at in range(10):
        many.ask(text(f"{at}", "x"))
    with pytest.raises(Overloaded, match="10 requests wait") as caught:
        many.model.embed([text("one more", "x" * 40)])
    assert caught.value.retry_after > 0
    many.gate.open.set()
    for answer in many.answers:
        answer.result(5)
    many.model.embed([text("now", "x" * 4000)])  # alone there is room for any


def test_one_with_long_texts_leaves_others_room_and_is_not_refused_midway(
    crowd: Callable[..., Crowd],
) -> None:
    many = crowd(most=100, share=30)
    many.occupy()
    long = [text(f"{at}", "x" * 80) for at in range(20)]  # 22 tokens each
    whole = many.ask(*long)
    assert many.model.load.tokens == 22
    others = [many.ask(text(f"q{at}", "x" * 72)) for at in range(3)]
    with pytest.raises(Overloaded):
        many.model.embed([text("one more", "x" * 80)])
    many.gate.open.set()
    assert (whole.result(5) == HashingEncoder(dim=DIM).embed(long)).all()
    for answer in others:
        answer.result(5)


@pytest.mark.alone
def test_a_few_words_foretell_no_hours_for_a_long_text(crowd: Callable[..., Crowd]) -> None:
    many = crowd()
    many.occupy()
    time.sleep(0.3)  # for 3 tokens, and what a call costs besides
    many.gate.open.set()
    many.answers[0].result(5)
    many.gate.open.clear()
    many.ask(text("second"))
    many.ask(text("third", "x" * 8_000))
    assert 1 < many.model.load.seconds < 3


@pytest.mark.alone
def test_nobody_waits_beyond_his_deadline(crowd: Callable[..., Crowd]) -> None:
    many = crowd()
    many.occupy()
    start = time.monotonic()
    with pytest.raises(TimedOut):
        many.ask(text("hasty"), seconds=0.05).result(5)
    assert time.monotonic() - start < 2
    patient = many.ask(text("patient"), seconds=30)
    assert many.model.load.requests == 1
    many.gate.open.set()
    patient.result(5)
    assert ["patient"] in many.gate.calls  # the hasty one costs the model nothing


@pytest.mark.alone
def test_a_deadline_that_cannot_be_kept_is_refused_at_once(crowd: Callable[..., Crowd]) -> None:
    many = crowd(overhead=0)
    many.occupy()
    time.sleep(0.3)  # a pace of 0.1 s a token
    many.gate.open.set()
    many.answers[0].result(5)
    many.gate.open.clear()
    many.ask(text("second"))
    many.ask(text("third", "x" * 400))
    assert many.model.load.seconds > 1
    start = time.monotonic()
    with pytest.raises(TimedOut, match="takes longer"), deadline.within(1):
        many.model.embed([text("fourth")])
    assert time.monotonic() - start < 0.5


def test_closing_answers_all_and_takes_nothing_more(crowd: Callable[..., Crowd]) -> None:
    many = crowd()
    many.occupy()
    waiting = [many.ask(text(f"{at}")) for at in range(5)]
    closing = threading.Thread(target=many.model.close)
    closing.start()
    while True:
        try:
            with deadline.within(0.01):
                many.model.embed([text("too late")])
        except NotAvailable:
            break
        except TimedOut:
            pass
    many.gate.open.set()
    closing.join(5)
    assert all(answer.result(5).shape == (1, DIM) for answer in waiting)
    many.model.close()


def test_an_exception_of_any_kind_leaves_the_model_at_work() -> None:
    class Fragile(HashingEncoder):
        def embed(self, items: Sequence[Item]) -> Matrix:
            if items[0].text == "memory":
                raise MemoryError
            if items[0].text == "short":
                return super().embed(items)[:0]
            return super().embed(items)

    model = BatchingModel(Fragile(dim=DIM))
    with pytest.raises(MemoryError):
        model.embed([text("memory")])
    with pytest.raises(InvalidInput, match=r"shape \(0, 16\), expected \(1, 16\)"):
        model.embed([text("short")])
    assert model.embed([text("fine")]).shape == (1, DIM)
    model.close()


def test_no_items_no_rows() -> None:
    model = BatchingModel(HashingEncoder(dim=DIM))
    assert model.embed([]).shape == (0, DIM)
    model.close()  # no thread was started


def test_the_default_models_rows_are_the_same_in_any_company(tmp_path: Path) -> None:
    inner = OnnxModel.load()
    items = [text(f"{at}", "a dog on a beach " * (at % 5 + 1) + str(at)) for at in range(24)]
    items += [Item(id="p", image=paint(tmp_path / "p.png", BLUE)), Item(id="b", image=encoded(RED))]
    items += [Item(id="both", text="red", image=encoded(RED, format="JPEG"))]
    items += [text("long", "a dog on a beach " * 200), text("word", "dog" * 600)]
    expected = [inner.embed([item]) for item in items]
    model = batched(inner)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            rows = list(pool.map(lambda item: model.embed([item]), items))
            apart = [np.abs(row - alone).max() for row, alone in zip(rows, expected, strict=True)]
            assert max(apart) < 1e-6  # its experts multiply the tokens of all in one product
    assert model.load.calls < model.load.items
    assert np.abs(model.embed(items) - np.concatenate(expected)).max() < 1e-6
    model.close()


@pytest.mark.alone
def test_a_lone_request_is_not_kept_waiting() -> None:
    class Instant(HashingEncoder):
        def embed(self, items: Sequence[Item]) -> Matrix:
            return rows

    rows = np.eye(1, DIM, dtype=np.float32)
    model = BatchingModel(Instant(dim=DIM))
    one = [text("one")]
    took = []
    for _ in range(300):
        start = time.perf_counter()
        model.embed(one)
        took.append(time.perf_counter() - start)
    model.close()
    assert np.median(took) < 0.001  # 0.2 ms on a quiet machine: benchmarks/batching.py


def test_a_collection_works_with_it_and_sees_the_model(tmp_path: Path) -> None:
    inner = HashingEncoder(dim=DIM)
    model = batched(inner)
    with Collection.open(tmp_path / "c", embedder=model, tokens=True) as collection:
        collection.add([{"id": "a", "text": "red shoe"}, {"id": "b", "image": encoded(BLUE)}])
        hits = collection.search("red shoe", rerank=2)
        assert hits[0].id == "a"
    with Collection.open(tmp_path / "c", embedder=inner) as collection:
        assert collection.search("red shoe", rerank=2) == hits
    model.close()


def test_pairs_are_scored_behind_it_too() -> None:
    inner = OnnxModel.load()
    model, query = batched(inner), build_query("red")
    assert isinstance(reranker_of(query, inner), Pairs) and isinstance(
        reranker_of(query, model), Pairs
    )
    model.close()


def test_deadlines_nest_and_go_along_with_the_context() -> None:
    assert deadline.remaining() is None
    with deadline.within(10), deadline.within(20):
        left = deadline.remaining()
        assert left is not None and 9 < left <= 10
        copied = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(deadline.remaining).result() is None
            there = pool.submit(copied.run, deadline.remaining).result()
        assert there is not None and 9 < there <= 10
    assert deadline.remaining() is None


@effort(max_examples=150)
@given(
    st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 120),
    st.integers(0, 10),
    st.data(),
)
def test_the_queue_gives_out_each_item_once_and_everyone_his_turn(
    wanted: list[list[int]], budget: int, overhead: int, data: st.DataObject
) -> None:
    waiting = Waiting()
    requests = [Request([text(f"{n}") for n in costs], costs, DIM) for costs in wanted]
    coming = list(requests)
    turns: list[Request] = []
    given_out: dict[tuple[int, int], int] = {}
    while coming or waiting:
        if coming and (not waiting or data.draw(st.booleans())):
            request = coming.pop()
            waiting.put(request)
            turns.append(request)
        else:
            taken = waiting.take(budget=budget, overhead=overhead)
            assert taken
            costs = [request.costs[at] for request, at in taken]
            assert len(costs) == 1 or len(costs) * max(costs) <= budget
            first = turns.pop(0)
            assert first in {request for request, _ in taken}
            for request, at in taken:
                given_out[id(request), at] = given_out.get((id(request), at), 0) + 1
            turns = [one for one in [*turns, first] if one.open]
        assert waiting.tokens == sum(request.cost for request in requests if request not in coming)
    assert set(given_out.values()) == {1}
    assert len(given_out) == sum(len(costs) for costs in wanted)
    assert not waiting.tokens and not len(waiting)
