"""Two servers of one folder: what either is told, both know."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.client.serving import served
from tests.redis_server import RedisServer
from triptych import connect

pytest.importorskip("triptych.api.server")


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[ExitStack, str, str]]:
    """The first one's stop, and both addresses."""
    with served(tmp_path) as second, ExitStack() as first:
        yield first, first.enter_context(served(tmp_path)), second


def test_a_write_to_either_is_found_by_both(workers: tuple[ExitStack, str, str]) -> None:
    stop_first, *urls = workers
    with connect(urls[0]) as one, connect(urls[1]) as other:
        one.create()
        for at, writer in enumerate((one, other, one, other)):
            writer.upsert([{"id": f"{at}", "text": f"shoe number {at}"}])
            for reader in (one, other):
                assert reader.count() == at + 1
                assert reader.search(f"shoe number {at}", limit=1)[0].id == f"{at}"

        def write(at: int) -> int:
            return (one, other)[at % 2].upsert([{"id": f"w{at}", "text": f"hat {at}"}])

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(write, range(40))) == 40
        assert one.count() == other.count() == 44
        assert one.delete([f"w{at}" for at in range(20)]) == 20
        assert other.count() == 24
        found = {hit.id for hit in other.search("hat 3", limit=24)}
        assert found == {hit.id for hit in one.search("hat 3", limit=24)}
        stop_first.close()  # it may have been the one that writes
        other.upsert([{"id": "after", "text": "after all"}])
        assert other.count() == 25
        assert other.search("after all", limit=1)[0].id == "after"


def test_what_one_has_found_the_other_need_not_search(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    shared = ("--redis-url", redis_server.url)

    def tier(url: str, words: str) -> str:
        asked = {"query": words}
        reply = httpx2.post(f"{url}/v1/collections/default/search", json=asked).raise_for_status()
        assert {hit["id"] for hit in reply.json()["hits"]} == ids
        return reply.headers["x-triptych-tier"]

    with (
        served(tmp_path, *shared) as first,
        served(tmp_path, *shared) as second,
        connect(first) as one,
    ):
        one.create()
        ids = set[str]()
        for asked, told in ((first, second), (second, first)):
            ids.add(f"{len(ids)}")
            one.add([{"id": f"{len(ids) - 1}", "text": "a shoe"}])
            tiers = set()
            for at in range(20):  # Redis is not waited for, so on a busy machine it may miss some
                assert tier(asked, f"shoe {at}") in ("index", "redis")
                tiers.add(tier(told, f"shoe {at}"))
                if "redis" in tiers:
                    break
            assert "redis" in tiers
