"""The cache over 100,000 items: a known answer, a Zipf stream with and without writes, a bad Redis.

A query is words, and the default model embeds them, so that its time is in every figure; the vector
that the search then takes is drawn from the corpus's own mixture. The stream asks 100,000 distinct
queries with frequencies 1/rank; each tier holds 5 % of them. Before it is timed, the tiers are
brought to where a long stream leaves them: the same stream runs with a model and a search that cost
nothing.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import WORK, median_ratio, seconds
from benchmarks.peers.corpus import DIM, Corpus, Mixture, metadata
from tests.fault_proxy import FaultProxy, cut, late, lying, silent, trickling
from tests.redis_server import RedisServer
from triptych.cache.base import Cache, NoCache
from triptych.cache.circuit_breaker import CircuitBreakerConfig
from triptych.cache.memory import MemoryCache
from triptych.cache.redis import RedisCache, RedisConfig
from triptych.cache.tiered import TieredCache
from triptych.embedder import Embedder
from triptych.encoders.onnx import OnnxModel
from triptych.index.plan import Budget
from triptych.retrieval.answering.answer_cache import AnswerCache
from triptych.retrieval.answering.hits import pack_hits
from triptych.retrieval.answering.query_log import QueryLog
from triptych.retrieval.answering.upkeep import Upkeep
from triptych.retrieval.collection import Collection
from triptych.types import Item, Matrix

COUNT = 100_000
DISTINCT = 100_000
HELD = 0.05
WARM = 1_000_000  # requests before anything is timed
TIMED = {0: 2_000, 1: 800, 100: 400}  # requests a round, by writes a second
TIMED_WITHOUT = 200
ROUNDS = 3
WRITES = (0, 1, 100)  # a second
_WORDS = ("red", "blue", "old", "small", "river", "dog", "bicycle", "street", "market", "hat")


class Words:
    """The default model's time, and vectors of the mixture: queries by number, items by id."""

    name, languages, dim = "bench", ("und",), DIM

    def __init__(self, corpus: Corpus) -> None:
        self._default = OnnxModel.from_name("")
        self.fingerprint = "bench"
        self.free = False  # costs nothing: to fill caches
        self.calls = 0
        self._corpus = corpus
        mixture = Mixture(seed=corpus.seed)
        chunks = range(1_000, 1_000 + DISTINCT // 10_000)  # far from the corpus's own
        self._queries_QM = np.concatenate([mixture.chunk(at) for at in chunks])

    def embed(self, items: Sequence[Item]) -> Matrix:
        if not items[0].id.startswith("query:"):
            rows = [int(item.id) % self._corpus.count for item in items]
            return np.ascontiguousarray(self._corpus.vectors_NM[rows])
        self.calls += 1
        if not self.free:
            self._default.embed(items)
        return self._queries_QM[[int((item.text or "").rpartition(" ")[2]) for item in items]]


def words(number: int) -> str:
    """Return query `number`: words, and the number."""
    digits = (number // len(_WORDS) ** at % len(_WORDS) for at in range(3))
    return f"a photo of {' '.join(_WORDS[digit] for digit in digits)} {number}"


class Stream:
    """Query numbers, number n as often as 1/(n + 1)."""

    def __init__(self) -> None:
        shares = 1.0 / np.arange(1, DISTINCT + 1)
        self._shares = shares / shares.sum()
        self._rng = np.random.default_rng(0)

    def take(self, count: int) -> list[int]:
        return self._rng.choice(DISTINCT, count, p=self._shares).tolist()


class Setting:
    """One way to answer: a collection behind a cache, as the server asks it, in serialised form."""

    def __init__(self, collection: Collection, model: Words, cache: Cache) -> None:
        self._collection, self._model, self._cache = collection, model, cache
        self.embedder = Embedder(model, cache=cache)
        self.answers = AnswerCache(collection, cache=cache)
        self._fixed = pack_hits(collection.search(words(0)))
        self.clear()

    def clear(self) -> None:
        """Begin to count anew."""
        self.tiers: dict[str, list[float]] = {}
        self.embedded = 0  # by the model

    def ask(self, number: int) -> None:
        start = time.perf_counter()
        text = words(number)
        key = self.answers.key("bench", [text, 10])
        answer = self.answers.get_or_compute(key, lambda: self._searched(text))
        self.tiers.setdefault(answer.tier, []).append(time.perf_counter() - start)

    def fill(self, stream: Stream) -> None:
        """Bring the caches to where a long stream leaves them."""
        self._model.free = True
        for number in stream.take(WARM):
            text = words(number)
            key = self.answers.key("bench", [text, 10])
            self.answers.get_or_compute(key, lambda text=text: self._filled(text))
        self._model.free = False

    def _searched(self, text: str) -> bytes:
        before = self._model.calls
        vector_M = self.embedder.embed([Item(id="query:0", text=text)])[0]
        self.embedded += self._model.calls - before
        return pack_hits(self._collection.search(vector=vector_M))

    def _filled(self, text: str) -> bytes:
        self.embedder.embed([Item(id="query:0", text=text)])
        return self._fixed


class Rate(NamedTuple):
    """Requests by the clock, and by what the asking thread computed: free of its neighbours."""

    a_second: float
    a_second_of_cpu: float


class Bench:
    """The collection, a Redis, and what was found."""

    def __init__(self) -> None:
        self.model = Words(Corpus(COUNT))
        self.collection = opened("ann", self.model, recall=0.97)
        self.server = RedisServer("--maxmemory-policy", "allkeys-lfu")
        self.server.start()
        self.stream = Stream()

    def room(self) -> MemoryCache:
        """Return tier 1; it and Redis have room for 5 % of the queries' answers and embeddings."""
        body = len(pack_hits(self.collection.search(words(0))))
        room = int(HELD * DISTINCT)
        entry = body + DIM * 4
        with self.server.client() as client:
            client.flushall()
            # what Redis spends on a key of ours beside its value was measured: 190 bytes
            base = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", base + room * (entry + 2 * 190))
        return MemoryCache(room * (entry + 2 * 650))

    def known(self) -> None:
        """A known answer in process, through the collection's own search."""
        answers = AnswerCache(self.collection, cache=NoCache()).attach()
        text = words(1)
        expected = self.collection.search(text)
        took = [seconds(lambda: self.collection.search(text)) for _ in range(20_000)]
        assert self.collection.search(text) == expected
        show("a known answer, search(): p50 us", 1e6 * statistics.median(took))
        show("                          p99 us", 1e6 * np.percentile(took, 99))
        answers.detach()
        took = [seconds(lambda: self.collection.search(text)) for _ in range(200)]
        show("the same without a cache: p50 us", 1e6 * statistics.median(took))

    def zipf(self) -> None:
        """Requests a second with all tiers and with none, in turns."""
        memory = self.room()
        # the machine may be busy with other things: filled is filled
        patient = RedisConfig(timeout=10.0, breaker=CircuitBreakerConfig(slow=10.0))
        filling = TieredCache([memory, RedisCache(self.server.url, config=patient)])
        Setting(self.collection, self.model, filling).fill(self.stream)
        cache = TieredCache([memory, RedisCache(self.server.url)])
        all_on = Setting(self.collection, self.model, cache)
        none = Setting(self.collection, self.model, NoCache())
        for writes in WRITES:
            all_on.clear()
            none.clear()
            rates: dict[str, list[Rate]] = {"all": [], "none": []}
            with written(self.collection, writes):
                for _ in range(ROUNDS):
                    rates["none"].append(self._rate(none, TIMED_WITHOUT))
                    rates["all"].append(self._rate(all_on, TIMED[writes]))
            self._report(writes, rates, all_on, none)
            if not writes:
                self._against_exhaustive(all_on)
        cache.close()

    def warm(self) -> None:
        """The most frequent questions of yesterday, today: from nothing, and asked before."""
        frequent = [number for number, _ in Counter(self.stream.take(20_000)).most_common(200)]
        log = QueryLog(WORK / "queries.json")
        log.clear()
        asked = AnswerCache(self.collection, cache=MemoryCache(10**7))
        Upkeep(asked.attach(), log=log)
        for number in frequent:
            self.collection.search(words(number))
        today = self.stream.take(500)
        for name in ("cold", "warm"):
            answers = AnswerCache(self.collection, cache=MemoryCache(10**7)).attach()
            took_warming = seconds(Upkeep(answers, log=log).warm) if name == "warm" else 0.0
            took = [
                seconds(lambda number=number: self.collection.search(words(number)))
                for number in today
            ]
            known = sum(number in frequent for number in today) / len(today)
            show(f"{name} start: p50 ms of the first 500 questions", 1e3 * statistics.median(took))
            show(f"{name} start: mean ms", 1e3 * statistics.mean(took))
        show("  of these were among the 200 asked most, %", 100 * known)
        show("  seconds to warm, in the background", took_warming)
        answers.detach()
        log.clear()

    def faults(self) -> None:
        """What Redis adds to a request that no tier can answer, well and not well."""
        alone = self._added(MemoryCache(10**7))
        show("without Redis: p99 us", 1e6 * np.percentile(alone, 99))
        with FaultProxy(self.server.socket) as proxy:
            cases: dict[str, Callable[[], None]] = {
                "well": lambda: None,
                "500 ms late": lambda: setattr(proxy, "fault", late(0.5)),
                "30 ms late": lambda: setattr(proxy, "fault", late(0.03)),
                "silent": lambda: setattr(proxy, "fault", silent),
                "a byte every 10 ms": lambda: setattr(proxy, "fault", trickling),
                "cut in the middle": lambda: setattr(proxy, "fault", cut),
                "garbage": lambda: setattr(proxy, "fault", lying(b"\xff\x00garbage\r\n")),
                "refused": proxy.refuse,
            }
            for name, begin in cases.items():
                with self.server.client() as client:
                    client.flushall()
                cache = RedisCache(proxy.url)
                cache.get_many([b"warm"])
                begin()
                first = self._added(cache, count=40)
                later = self._added(cache)
                is_open = cache.stats()["redis"].open
                show(
                    f"{name}: p99 ms added, breaker {'open' if is_open else 'closed'}",
                    1e3 * (np.percentile(later, 99) - np.percentile(alone, 99)),
                )
                show(f"{' ' * len(name)}  longest of the first 40, ms", 1e3 * max(first))
                cache.close()

    def close(self) -> None:
        self.collection.close()
        self.server.remove()

    def _rate(self, setting: Setting, count: int) -> Rate:
        numbers = self.stream.take(count)
        start, start_cpu = time.perf_counter(), time.thread_time()
        for number in numbers:
            setting.ask(number)
        return Rate(count / (time.perf_counter() - start), count / (time.thread_time() - start_cpu))

    def _report(
        self, writes: int, rates: dict[str, list[Rate]], all_on: Setting, none: Setting
    ) -> None:
        print(f"\n{writes} writes a second")
        for at, unit in enumerate(Rate._fields):
            many = {name: [rate[at] for rate in some] for name, some in rates.items()}
            show(f"  no cache: requests {unit}", statistics.median(many["none"]))
            show(f"  all tiers: requests {unit}", statistics.median(many["all"]))
            show("    times as many", median_ratio(many["all"], many["none"]))
        shares = Counter({tier: len(took) for tier, took in all_on.tiers.items()})
        for tier, number in shares.most_common():
            show(f"    answered by {tier}: %", 100 * number / shares.total())
            show(
                f"    {' ' * len(tier)}            p50 ms",
                1e3 * statistics.median(all_on.tiers[tier]),
            )
        show("    embedded by the model: %", 100 * all_on.embedded / shares.total())
        both = [one for took in all_on.tiers.values() for one in took]
        show("  all tiers: p50 ms", 1e3 * statistics.median(both))
        show("  no cache: p50 ms", 1e3 * statistics.median(none.tiers["search"]))

    def _against_exhaustive(self, all_on: Setting) -> None:
        exact = opened("exact", self.model, recall=1.0)
        scan = Setting(exact, self.model, NoCache())
        self._rate(scan, 100)
        both = [one for took in all_on.tiers.values() for one in took]
        slow = statistics.median(scan.tiers["search"])
        show("  exhaustive fp32 without a cache: p50 ms", 1e3 * slow)
        show("  p50 all on / exhaustive (asked: 0.33)", statistics.median(both) / slow)
        exact.close()

    def _added(self, cache: Cache, count: int = 2_000) -> list[float]:
        answers = AnswerCache(self.collection, cache=cache)
        took = []
        for at in range(count):
            key = answers.key("unknown", [time.perf_counter_ns(), at])
            took.append(seconds(lambda key=key: answers.get_or_compute(key, lambda: b"x" * 1500)))
            time.sleep(0.0005)
        return took


@contextmanager
def written(collection: Collection, rate: int) -> Iterator[None]:
    """Write an item `rate` times a second meanwhile."""
    stop = threading.Event()

    def work() -> None:
        at, begin = 0, time.perf_counter()
        while not stop.wait(max(0.0, begin + at / rate - time.perf_counter())):
            collection.upsert([{"id": str(at % 1_000), "text": f"written {at}"}])
            at += 1

    thread = threading.Thread(target=work) if rate else None
    if thread is not None:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread is not None:
            thread.join()


def opened(name: str, model: Words, *, recall: float) -> Collection:
    """Return the collection of this name with all items in it, made on first use."""
    folder: Path = WORK / f"cache-{name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    collection = Collection.open(folder, embedder=model, budget=Budget(recall=recall))
    if len(collection) < COUNT:
        collection.upsert(
            {"id": str(at), "text": f"item {at}", "metadata": metadata(at)} for at in range(COUNT)
        )
    collection.optimize()
    return collection


def show(what: str, value: float) -> None:
    print(f"{what:60}{value:12,.4g}", flush=True)


def main() -> None:
    bench = Bench()
    try:
        for name in sys.argv[1:] or ("known", "warm", "zipf", "faults"):
            getattr(bench, name)()
    finally:
        bench.close()


if __name__ == "__main__":
    main()
