"""The HTTP server: known answers beside fixed bytes, answers that only Redis has, unknown queries
beside the model, memory, slow connections.

Every contestant is a process of its own on the same uvicorn (uvloop, httptools, no access log);
`wrk` of Debian asks over 16 connections, in turns.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from benchmarks.common import WORK, median_ratio, memory
from benchmarks.processes import Process, free_port, our_server, running
from benchmarks.random_model import RandomModel
from benchmarks.wrk import load, require
from tests.redis_server import RedisServer
from triptych.keys import new_key, write_keys
from triptych.retrieval.collection import Collection
from triptych.settings import Settings
from triptych.types import Item

ITEMS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
ROUNDS = 3
SHARED_ROUNDS = 7
SECONDS = 2
CONNECTIONS = 16
SHARED = 10_000  # answers in Redis, more than are asked for in a turn of a second
_PLAIN = """
import sys, uvicorn
from fastapi import FastAPI, Response
BODY = open(sys.argv[2], "rb").read()
api = FastAPI()

@api.post("/fixed")
async def fixed() -> Response:
    return Response(BODY, media_type="application/json")

async def raw(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await receive()
    length = str(len(BODY)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})

uvicorn.run(api if sys.argv[1] == "fastapi" else raw, port=int(sys.argv[3]), loop="uvloop",
            http="httptools", access_log=False, log_level="error", lifespan="off")
"""


def filled(folder: Path) -> Settings:
    """Return a data folder with the collection `many`; its vectors are random, its model is not."""
    settings = Settings(data=folder)
    path = folder / "default" / "many"
    model = settings.open_model()
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with Collection.open(path, embedder=RandomModel(model), threads=2) as collection:
            collection.add({"id": str(at), "text": f"item {at}"} for at in range(ITEMS))
            collection.optimize()
        settings.keep(model)
        (folder / "done").touch()
    return settings


def asked(url: str, bodies: Sequence[str], key: str, *, seconds: float = SECONDS) -> float:
    """Return requests a second over 16 connections, the bodies in turn."""
    headers = {"Authorization": f"Bearer {key}"}
    return load(url, bodies, connections=CONNECTIONS, seconds=seconds, headers=headers).rate


@contextmanager
def plain(name: str, answer: Path) -> Iterator[str]:
    """Yield where a server without anything in it returns the bytes of a file."""
    port = free_port()
    command = [sys.executable, "-c", _PLAIN, name, str(answer), str(port)]
    with running(command, port, "/fixed"):
        yield f"http://127.0.0.1:{port}/fixed"


def known(stack: ExitStack, url: str, key: str, process: Process) -> None:
    """Print known answers beside fixed bytes, and the growth of memory."""
    body = '{"query":"a red bicycle"}'
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for _ in range(2):
        reply = httpx2.post(url, content=body, headers=headers)
    assert reply.headers["x-triptych-tier"] == "process"
    answer = WORK / "answer.json"
    answer.write_bytes(reply.content)
    contestants = {"triptych, known": url}
    for name in ("fastapi", "raw"):
        contestants[f"{name}, fixed bytes"] = stack.enter_context(plain(name, answer))
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, where in contestants.items():
            rates[name].append(asked(where, [body], key))
    print(f"answers of {len(reply.content):,} bytes, {CONNECTIONS} connections, wrk:")
    for name, found in rates.items():
        rate, ratio = statistics.median(found), median_ratio(rates["triptych, known"], found)
        print(f"  {name:22} {rate:8,.0f} requests/s   ours is {ratio:.2f} x")
    before, done = memory(of=process.pid), 0.0
    while done < 100_000:
        done += asked(url, [body], key, seconds=5) * 5
    grown = (memory(of=process.pid) - before) / 2**20 * 100_000 / done
    print(f"memory: {grown:+.2f} MB per 100,000 requests ({before / 2**20:.0f} MB before)")


def shared(settings: Settings, key: str) -> None:
    """Print answers that another process has put into Redis beside those that this one has, and
    beside the bytes that `known` wrote down.

    Each turn is a server that has just begun, and no question comes twice: nothing is known to it.
    """
    questions = [json.dumps({"query": f"a red bicycle number {at}"}) for at in range(SHARED)]
    redis = RedisServer()
    redis.start()
    try:
        missing = SHARED
        while missing:  # wrk leaves the last ones unanswered, and a busy Redis does not take all
            with serving(settings, redis.url) as (url, _):
                put = 0.0
                while put < SHARED:
                    put += asked(url, questions[int(put) :], key, seconds=5) * 5
                missing = _tiers(url, key)["index"]
        rates: dict[str, list[float]] = {"redis": [], "process": [], "fastapi": []}
        for _ in range(SHARED_ROUNDS):
            with serving(settings, redis.url) as (url, _):
                asked(url, ['{"query":"another"}'], key, seconds=1)  # the collection is open
                rates["redis"].append(asked(url, questions, key, seconds=1))
                answered = _tiers(url, key)["redis"]
                assert 0.98 * rates["redis"][-1] < answered < SHARED, answered
                rates["process"].append(asked(url, questions[:1], key, seconds=1))
            with plain("fastapi", WORK / "answer.json") as url:
                asked(url, questions[:1], key, seconds=1)
                rates["fastapi"].append(asked(url, questions[:1], key, seconds=1))
    finally:
        redis.remove()
    for name, found in rates.items():
        ratio = median_ratio(rates["redis"], found)
        rate = statistics.median(found)
        print(f"  known to {name:13} {rate:8,.0f} requests/s   from Redis is {ratio:.2f} x")


def _tiers(url: str, key: str) -> Counter[str]:
    """Return how many searches each tier has answered."""
    base = url.partition("/v1")[0]
    said = httpx2.get(f"{base}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    found = re.findall(r'^triptych_answers_total\{tier="(\w+)"\} (\S+)', said, re.M)
    return Counter({tier: int(float(number)) for tier, number in found})


def unknown(settings: Settings, url: str, key: str) -> None:
    """Print queries that nobody asked before beside the model's own time, in turns."""
    model = settings.open_model()
    headers = {"Authorization": f"Bearer {key}"}
    times: dict[str, list[float]] = {"http": [], "model": [], "livez": [], "count": []}
    stages: dict[str, list[float]] = {}
    with httpx2.Client(headers=headers, timeout=60) as client:
        for at in range(230):
            words = f"a picture of thing {at} on a beach"
            start = time.perf_counter()
            reply = client.post(url, json={"query": words}).raise_for_status()
            middle = time.perf_counter()
            for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"]):
                stages.setdefault(stage, []).append(float(ms))
            model.embed([Item(id="q", text=words)])
            end = time.perf_counter()
            client.get(url.partition("/v1")[0] + "/livez").raise_for_status()
            livez = time.perf_counter()
            client.post(url.replace("/search", "/items/count"), json={}).raise_for_status()
            if at >= 30:
                times["livez"].append((livez - end) * 1000)
                times["count"].append((time.perf_counter() - livez) * 1000)
                times["http"].append((middle - start) * 1000)
                times["model"].append((end - middle) * 1000)
    http, alone = (statistics.median(times[name]) for name in ("http", "model"))
    print(f"unknown, {ITEMS:,} items: p50 {http:.1f} ms, the model alone {alone:.1f} ms, "
          f"the rest {http - alone:+.1f} ms")  # fmt: skip
    parts = {name: statistics.median(found[30:]) for name, found in stages.items()}
    parts["everything else"] = http - sum(parts.values())
    floor, hop = (statistics.median(times[name]) for name in ("livez", "count"))
    print(
        f"  the same client and a route that does nothing {floor:.1f} ms, that counts {hop:.1f} ms"
    )
    print("  of it " + ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items()))


def slow(url: str, key: str) -> None:
    """Print an honest client's p95 without and with 1,000 connections that send a byte a second."""
    headers = {"Authorization": f"Bearer {key}"}

    def ninety_fifth(round_: int) -> float:
        times = []
        with httpx2.Client(headers=headers) as client:
            for at in range(200):
                start = time.perf_counter()
                client.post(url, json={"query": f"slow {round_} {at}"}).raise_for_status()
                times.append((time.perf_counter() - start) * 1000)
        return statistics.quantiles(times, n=20)[-1]

    ninety_fifth(0)
    before = ninety_fifth(1)
    held = [socket.create_connection(("127.0.0.1", urlsplit(url).port)) for _ in range(1000)]
    for one in held:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    after = ninety_fifth(2)
    for one in held:
        one.close()
    print(f"1,000 slow connections: p95 {before:.1f} -> {after:.1f} ms, {after / before:.2f} x")


@contextmanager
def serving(settings: Settings, redis: str | None = None) -> Iterator[tuple[str, Process]]:
    """Yield where our server searches, and the server: with a key, its limits and its log."""
    under = [] if redis is None else ["env", f"TRIPTYCH_REDIS_URL={redis}"]
    keys = ("--key-file", str(WORK / "keys.json"))
    with our_server(settings.data, *keys, under=under) as (url, process):
        yield f"{url}/v1/collections/many/search", process


def main() -> None:
    require()
    settings = filled(WORK / f"serve-{ITEMS}")
    secret, key = new_key("bench", role="read", rate=1e9)
    write_keys(WORK / "keys.json", [key])
    with ExitStack() as stack:
        url, process = stack.enter_context(serving(settings))
        unknown(settings, url, secret)
        known(stack, url, secret, process)
        slow(url, secret)
    shared(settings, secret)


if __name__ == "__main__":
    main()
