"""Writes handed from one process to another: the messages, the server, what can go wrong."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import socket
import stat
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
    PictureError,
    TriptychError,
)
from triptych.index.remote import wire
from triptych.index.remote.channel import receive
from triptych.index.remote.codec import (
    decode_reply,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
)
from triptych.index.remote.handoff import RemoteWriter, WriteServer
from triptych.index.remote.requests import (
    BeginSpace,
    Compact,
    Delete,
    DropSpace,
    Ping,
    PutVectors,
    Reply,
    Request,
    SwitchSpace,
    Touch,
    Write,
)
from triptych.index.sqlite.lock import WriterLock
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Entry, FileState

FINGERPRINT = "f" * 64
FORK = multiprocessing.get_context("fork")
Handle = Callable[[Request], Reply]


def units(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors_NM = np.random.default_rng(seed).standard_normal((count, dim))
    vectors_NM /= np.linalg.norm(vectors_NM, axis=1, keepdims=True)
    return vectors_NM.astype(np.float32)


def entries(count: int, dim: int = 4, **fields: Any) -> list[Entry]:
    return [
        Entry(id=f"i{at}", modality="text", vector=vector_M, **fields)
        for at, vector_M in enumerate(units(count, dim))
    ]


def echo(request: Request) -> Reply:
    match request:
        case Write():
            return Reply(number=len(request.entries), sequence=1)
        case Delete():
            return Reply(number=len(request.ids), sequence=2)
    return Reply(number=0, sequence=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def served(folder: Path, handle: Handle = echo, **options: Any) -> Iterator[WriteServer]:
    server = WriteServer(folder, handle, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def write(remote: RemoteWriter, batch: list[Entry]) -> int:
    return remote.write(batch, replace=True, fingerprint=FINGERPRINT)


def raw(request: Request) -> bytes:
    return b"".join(encode_request(request))


def parsed(data: bytes) -> wire.Frame:
    rest = memoryview(data)

    def read(count: int) -> memoryview:
        nonlocal rest
        if len(rest) < count:
            raise EOFError
        found, rest = rest[:count], rest[count:]
        return found

    frame = wire.read_frame(read)
    assert not rest
    return frame


def fields(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.id, entry.modality, entry.vector.tobytes(), entry.text, entry.uri,
        entry.metadata, entry.content, entry.file, entry.thumbnail,
    )  # fmt: skip


# --- the messages

anything = st.text(alphabet=st.characters(exclude_categories=()), max_size=12)
whole = st.integers(0, 2**63 - 1)
metadata = st.dictionaries(
    anything,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)  # fmt: skip
states = st.builds(
    FileState, root=anything, size=whole, mtime_ns=st.integers(-(2**63) + 1, 2**63 - 1)
)
ids = anything.filter(bool)


@st.composite
def writes(draw: st.DrawFn) -> Write:
    count, dim = draw(st.integers(0, 5)), draw(st.integers(1, 9))
    vectors_NM = units(count, dim, seed=draw(st.integers(0, 99)))
    batch = [
        Entry(
            id=draw(ids),
            modality=draw(st.sampled_from(["text", "image", "both", "vector"])),
            vector=vector_M,
            text=draw(st.none() | anything),
            uri=draw(st.none() | anything),
            metadata=draw(metadata),
            content=draw(st.none() | anything),
            file=draw(st.none() | states),
            thumbnail=draw(st.none() | st.binary(max_size=20)),
        )
        for vector_M in vectors_NM
    ]
    return Write(entries=batch, replace=draw(st.booleans()), fingerprint=draw(anything))


@settings(max_examples=150, deadline=None)
@given(request=writes())
def test_a_write_arrives_as_it_left(request: Write) -> None:
    found = decode_request(parsed(raw(request)))
    assert isinstance(found, Write)
    assert (found.replace, found.fingerprint) == (request.replace, request.fingerprint)
    assert list(map(fields, found.entries)) == list(map(fields, request.entries))


@settings(max_examples=60, deadline=None)
@given(st.lists(ids).map(lambda names: Delete(ids=names)) | st.dictionaries(whole, states).map(lambda found: Touch(states=found)) | st.just(Compact()) | st.just(Ping()))  # fmt: skip
def test_the_other_requests_arrive_as_they_left(request: Request) -> None:
    assert decode_request(parsed(raw(request))) == request


@pytest.mark.parametrize(
    "request_",
    [BeginSpace(Space(0, "m", "f", 8, "fp16", 5)), SwitchSpace(3, True), DropSpace(4)],
    ids=lambda one: type(one).__name__,
)
def test_what_is_asked_of_a_space_arrives_as_it_left(request_: Request) -> None:
    assert decode_request(parsed(raw(request_))) == request_


@given(
    st.lists(st.none() | st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 7),
    st.integers(1, 9),
)  # fmt: skip
def test_vectors_and_states_arrive_as_they_left(
    lengths: list[int | None], dim: int, width: int
) -> None:
    draw = np.random.default_rng(len(lengths))
    states = [
        None if length is None else draw.integers(1, 127, (length, width), dtype=np.int8)
        for length in lengths
    ]
    rows_N = np.arange(3, 3 + len(lengths))
    vectors_NM = units(len(lengths), dim)
    sent = PutVectors(space=2, rows_N=rows_N, vectors_NM=vectors_NM, states=states)
    found = decode_request(parsed(raw(sent)))
    assert isinstance(found, PutVectors) and found.space == 2
    assert np.array_equal(found.rows_N, rows_N) and np.array_equal(found.vectors_NM, vectors_NM)
    assert len(found.states) == len(states)
    assert all(
        one is other is None or np.array_equal(one, other)
        for one, other in zip(found.states, states, strict=True)
    )


@pytest.mark.parametrize(
    "error",
    [
        kind("what \ud800 was got.", hint=hint)
        for kind in (InvalidInput, NotFound, NotAvailable, ModelMismatch, CollectionBusy, CollectionDamaged, TriptychError)
        for hint in (None, "Do this.")
    ] + [PictureError("bomb", "It is too large.", hint="Shrink it."), PictureError("x", "y")],
    ids=repr,
)  # fmt: skip
def test_an_error_arrives_as_it_left(error: TriptychError) -> None:
    with pytest.raises(TriptychError) as caught:
        decode_reply(parsed(b"".join(encode_error(error))))
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert caught.value.code == error.code


def test_an_error_of_a_class_of_ones_own_arrives_as_the_nearest_known() -> None:
    class Late(CollectionBusy):
        pass

    with pytest.raises(CollectionBusy, match="late"):
        decode_reply(parsed(b"".join(encode_error(Late("late")))))


def test_an_error_of_a_newer_release_is_still_ours() -> None:
    frame = wire.write_frame(wire.ERROR, {"error": "Unheard", "message": "m", "code": "c"})
    with pytest.raises(TriptychError, match="m"):
        decode_reply(parsed(b"".join(frame)))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_damaged_message_is_refused_by_type(data: st.DataObject) -> None:
    good = raw(
        Write(entries=entries(3, text="t", thumbnail=b"jpeg"), replace=True, fingerprint="f")
    )
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0 if len(bad) < len(good) else 1, 3)) if bad else 0):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    if bytes(bad) != good:
        with pytest.raises((InvalidInput, NotAvailable, EOFError)):
            decode_request(parsed(bytes(bad)))


SENT = {
    "operation": "write", "replace": True, "fingerprint": "f", "dim": 2, "ids": ["a"],
    "modalities": ["text"], "texts": [None], "uris": [None], "metadata": [{}],
    "contents": [None], "files": [None], "thumbnails": [None], "tokens": [None],
}  # fmt: skip
UNIT = np.array([1, 0], dtype="<f4").tobytes()


def test_the_form_of_a_lie_is_right_before_it_lies() -> None:
    frame = wire.Frame(wire.REQUEST, dict(SENT), memoryview(UNIT))
    assert isinstance(decode_request(frame), Write)


LIES: list[dict[str, Any]] = [
    {"replace": 1}, {"fingerprint": None}, {"dim": 3}, {"dim": 0}, {"dim": -2}, {"dim": 2.0},
    {"dim": 2**62}, {"dim": True}, {"ids": "a"}, {"ids": [""]}, {"ids": [1]}, {"ids": ["a", "b"]},
    {"ids": []}, {"modalities": ["sound"]}, {"modalities": [["text"]]}, {"texts": [1]},
    {"texts": []}, {"uris": [b""[:0].decode(), "x"]}, {"metadata": [[]]}, {"metadata": [None]},
    {"contents": [{}]}, {"files": [["r", 1]]}, {"files": [["r", -1, 1]]}, {"files": [["r", 1, 2**63]]},
    {"files": [[None, 1, 1]]}, {"files": [["r", 2**63, 1]]}, {"thumbnails": [-1]},
    {"thumbnails": [1]}, {"thumbnails": [2**62]}, {"thumbnails": [1.5]}, {"operation": None},
    {"tokens": [[1]]}, {"tokens": [[0, 2**62]]}, {"tokens": [[1, 3]]},
    {"operation": "drop"}, {"operation": ["write"]}, {"operation": "delete", "ids": [None]},
    {"operation": "touch", "rows": [-1], "files": [["r", 1, 1]]},
    {"operation": "touch", "rows": [1], "files": []},
    {"operation": "vectors", "space": 1, "rows": [1], "tokens": [[3]]},
    {"operation": "vectors", "space": 1, "rows": [1], "tokens": [[1, 1]]},
    {"operation": "vectors", "space": 1, "rows": [1, 2], "tokens": []},
    {"operation": "vectors", "space": 1, "rows": [1], "tokens": None},
    {"operation": "begin", "space": ["m", "f", 8, "fp32"]},
    {"operation": "begin", "space": ["m", "f", 8, "fp32", -1]},
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_lie_is_refused_by_type(lie: dict[str, Any]) -> None:
    with pytest.raises((InvalidInput, NotAvailable)):
        decode_request(wire.Frame(wire.REQUEST, SENT | lie, memoryview(UNIT)))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(SENT)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 2**64) | anything, st.lists, max_leaves=4
    ),
)
def test_any_other_value_is_refused_or_understood(name: str, value: Any) -> None:
    with suppress(InvalidInput, NotAvailable):
        decode_request(wire.Frame(wire.REQUEST, SENT | {name: value}, memoryview(UNIT)))


@pytest.mark.parametrize("numbers", [[np.nan, 0], [np.inf, 0], [0, 0]])
def test_a_vector_that_is_none_is_refused(numbers: list[float]) -> None:
    body = memoryview(np.array(numbers, dtype="<f4").tobytes())
    with pytest.raises(InvalidInput):
        decode_request(wire.Frame(wire.REQUEST, dict(SENT), body))


def test_a_request_that_is_an_answer_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected a request"):
        decode_request(parsed(b"".join(encode_reply(Reply(number=1, sequence=1)))))


def test_numbers_that_json_lacks_are_refused() -> None:
    text = b'{"operation":NaN}'
    crc = zlib.crc32(text, zlib.crc32(struct.pack("<HIQ", 1, len(text), 0)))
    with pytest.raises(InvalidInput, match="NaN"):
        parsed(struct.pack("<4sHHIQI", b"TRPW", 1, 1, len(text), 0, crc) + text)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"\xff", b"", b"9" * 5000])
def test_a_header_that_is_no_object_is_refused(text: bytes) -> None:
    crc = zlib.crc32(text, zlib.crc32(struct.pack("<HIQ", 1, len(text), 0)))
    with pytest.raises(InvalidInput):
        parsed(struct.pack("<4sHHIQI", b"TRPW", 1, 1, len(text), 0, crc) + text)


def test_metadata_that_cannot_travel_are_named() -> None:
    for bad in ({"a": object()}, {"a": float("nan")}, {1: "a"}):
        batch = [*entries(2), Entry(id="bad one", modality="text", vector=units(1, 4)[0], metadata=bad)]  # type: ignore[arg-type]  # fmt: skip
        with pytest.raises(InvalidInput, match="bad one"):
            encode_request(Write(entries=batch, replace=True, fingerprint="f"))


def test_vectors_of_two_widths_do_not_travel() -> None:
    batch = [*entries(1, dim=4), *entries(1, dim=5)]
    with pytest.raises(InvalidInput, match="expected 4"):
        encode_request(Write(entries=batch, replace=True, fingerprint="f"))


def test_what_is_too_large_does_not_leave(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 10_000)
    with served(folder), pytest.raises(InvalidInput, match="fewer"):
        write(RemoteWriter(folder), entries(3, dim=1000))
    monkeypatch.setattr(wire, "MAX_HEADER", 100)
    with pytest.raises(InvalidInput, match="fewer"):
        encode_request(Delete(ids=["x" * 100]))


# --- two processes


def serve_elsewhere(folder: Path, handle: Handle, ready: Any, **options: Any) -> None:
    lock = WriterLock(folder / "lock")
    lock.acquire()
    server = WriteServer(folder, handle, **options)
    server.start()
    ready.set()
    time.sleep(60)


@contextmanager
def elsewhere(folder: Path, handle: Handle, **options: Any) -> Iterator[int]:
    """Another process that serves; yields its id."""
    ready = FORK.Event()
    process = FORK.Process(
        target=serve_elsewhere, args=(folder, handle, ready), kwargs=options, daemon=True
    )
    process.start()
    assert ready.wait(10) and process.pid
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def test_another_process_writes_for_this_one(folder: Path) -> None:
    log = folder / "log"

    def handle(request: Request) -> Reply:
        with log.open("a") as file:
            print(os.getpid(), type(request).__name__, file=file)
        match request:
            case Write() if not request.replace:
                raise InvalidInput("'i0' exists already.", hint="upsert replaces items.")
            case Touch():
                assert request.states == {7: FileState(root="/r\udcff", size=1, mtime_ns=-2)}
        return echo(request)

    with elsewhere(folder, handle) as pid:
        remote = RemoteWriter(folder)
        remote.check()
        assert write(remote, entries(3)) == 3
        assert remote.delete(["a", "\ud800"]) == 2
        remote.touch({7: FileState(root="/r\udcff", size=1, mtime_ns=-2)})
        remote.compact()
        with pytest.raises(InvalidInput, match="exists already") as caught:
            remote.write(entries(1), replace=False, fingerprint=FINGERPRINT)
        assert caught.value.hint == "upsert replaces items."
    done = [line.split() for line in log.read_text().splitlines()]
    assert {int(number) for number, _ in done} == {pid} != {os.getpid()}
    assert [name for _, name in done] == ["Write", "Delete", "Touch", "Compact", "Write"]


def test_a_writer_killed_in_the_middle_leaves_the_outcome_unknown(folder: Path) -> None:
    def handle(request: Request) -> Reply:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with elsewhere(folder, handle), pytest.raises(NotAvailable, match="unknown") as caught:
        write(RemoteWriter(folder), entries(1))
    assert caught.value.hint and "again" in caught.value.hint
    with pytest.raises(CollectionBusy):  # its socket is still there, nobody behind it
        write(RemoteWriter(folder), entries(1))
    assert (folder / "writer.sock").exists()
    with served(folder):
        assert write(RemoteWriter(folder), entries(1)) == 1


@pytest.mark.alone
def test_a_stopped_writer_is_waited_for_and_no_longer(folder: Path) -> None:
    with elsewhere(folder, echo) as pid:
        os.kill(pid, signal.SIGSTOP)
        remote = RemoteWriter(folder, timeout=0.2)
        start = time.monotonic()
        with pytest.raises(CollectionBusy, match=str(pid)):
            write(remote, entries(1))
        with pytest.raises(CollectionBusy):  # more than fits into the socket's buffer
            write(remote, entries(2000, dim=512))
        assert time.monotonic() - start < 3
        os.kill(pid, signal.SIGCONT)
        assert write(RemoteWriter(folder), entries(1)) == 1


def test_a_request_given_up_before_it_was_taken_is_never_done(folder: Path) -> None:
    done = folder / "done"

    def handle(request: Request) -> Reply:
        done.touch()
        return echo(request)

    with elsewhere(folder, handle) as pid:
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CollectionBusy):
            write(RemoteWriter(folder, timeout=0.1), entries(1))
        os.kill(pid, signal.SIGCONT)
        RemoteWriter(folder).check()
        time.sleep(0.1)
        assert not done.exists()


def test_nobody_there(folder: Path) -> None:
    lock = WriterLock(folder / "lock")
    lock.acquire()
    for call in (RemoteWriter(folder).check, lambda: write(RemoteWriter(folder), entries(1))):
        with pytest.raises(CollectionBusy, match=f"process {os.getpid()}") as caught:
            call()
        assert caught.value.hint
    lock.release()
    (folder / "writer.sock").write_text("no socket")
    with pytest.raises(CollectionBusy):
        RemoteWriter(folder).check()


# --- one process, several threads


def test_twenty_clients_at_once(folder: Path) -> None:
    mutex, seen = threading.Lock(), set()

    def handle(request: Request) -> Reply:
        assert isinstance(request, Write)
        time.sleep(0.002)
        with mutex:
            seen.add(request.entries[0].id)
        return Reply(number=len(request.entries), sequence=0)

    failures: list[BaseException] = []

    def client(name: int) -> None:
        try:
            for turn in range(5):
                batch = [
                    Entry(id=f"{name}-{turn}", modality="text", vector=vector_M)
                    for vector_M in units(name + 1, 8)
                ]
                assert write(RemoteWriter(folder), batch) == name + 1
        except BaseException as error:
            failures.append(error)

    with served(folder, handle) as server:
        run_all([threading.Thread(target=client, args=(name,)) for name in range(20)])
        assert server.serving
    assert not failures
    assert len(seen) == 100


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_stop_finishes_what_was_taken_and_refuses_the_rest(folder: Path) -> None:
    done: list[str] = []
    started = threading.Event()

    def handle(request: Request) -> Reply:
        assert isinstance(request, Delete)
        started.set()
        time.sleep(0.02)
        done.append(request.ids[0])
        return Reply(number=1, sequence=len(done))

    acked: list[str] = []
    others: list[BaseException] = []

    def client(name: int) -> None:
        for turn in range(500):
            try:
                RemoteWriter(folder).delete([f"{name}-{turn}"])
                acked.append(f"{name}-{turn}")
            except BaseException as error:
                others.append(error)
                return

    server = WriteServer(folder, handle)
    server.start()
    threads = [threading.Thread(target=client, args=(name,)) for name in range(24)]
    for thread in threads:
        thread.start()
    assert started.wait(5)
    time.sleep(0.1)
    server.stop()
    at_stop = list(done)
    for thread in threads:
        thread.join(20)
    assert len(others) == 24
    assert {type(error) for error in others} == {CollectionBusy}
    assert sorted(done) == sorted(acked)  # nobody is left in doubt
    assert done == at_stop
    assert not (folder / "writer.sock").exists()


@pytest.mark.alone
def test_stop_does_not_wait_for_a_client_that_sends_slowly(folder: Path) -> None:
    with served(folder) as server:
        connection = connected(folder)
        connection.sendall(raw(Compact())[:10])
        time.sleep(0.05)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 2
        with connection, pytest.raises(CollectionBusy, match="letting go"):
            decode_reply(receive(connection, stall=5))


def test_start_and_stop_twice_and_again(folder: Path) -> None:
    server = WriteServer(folder, echo)
    server.stop()
    for _ in range(3):
        server.start()
        server.start()
        assert server.serving
        assert write(RemoteWriter(folder), entries(1)) == 1
        server.stop()
        server.stop()
        assert not server.serving
        with pytest.raises(CollectionBusy):
            RemoteWriter(folder).check()


def test_the_handler_may_stop_the_server(folder: Path) -> None:
    def handle(request: Request) -> Reply:
        server.stop()
        return echo(request)

    server = WriteServer(folder, handle)
    server.start()
    assert write(RemoteWriter(folder), entries(2)) == 2
    with pytest.raises(CollectionBusy):
        RemoteWriter(folder).check()


def test_stop_leaves_the_socket_of_a_successor(folder: Path) -> None:
    old, new = WriteServer(folder, echo), WriteServer(folder, echo)
    old.start()
    new.start()
    old.stop()
    RemoteWriter(folder).check()
    new.stop()
    assert not (folder / "writer.sock").exists()


def test_what_goes_wrong_in_the_handler_stays_there(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(request: Request) -> Reply:
        if isinstance(request, Compact):
            raise ZeroDivisionError("a secret")
        return echo(request)

    with served(folder, handle):
        with pytest.raises(TriptychError, match="ZeroDivisionError") as caught:
            RemoteWriter(folder).compact()
        assert "secret" not in str(caught.value)
        assert write(RemoteWriter(folder), entries(1)) == 1
    assert "a secret" in caplog.text


# --- clients that break, sleep or lie


def connected(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.connect(str(folder / "writer.sock"))
    return connection


@pytest.mark.alone
def test_a_sleeping_client_is_dropped(folder: Path) -> None:
    with served(folder, stall=0.2):
        for sent in (
            b"",
            b"TR",
            raw(Write(entries=entries(9), replace=True, fingerprint="f"))[:-1],
        ):
            with connected(folder) as connection:
                connection.sendall(sent)
                start = time.monotonic()
                with suppress(ConnectionError):
                    assert connection.recv(1) == b""
                assert time.monotonic() - start < 2


@pytest.mark.alone
def test_a_client_that_dribbles_is_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.index.remote.handoff._WHOLE", 0.3)
    with served(folder), connected(folder) as connection:
        start = time.monotonic()
        with pytest.raises(OSError):
            for byte in raw(Delete(ids=["x" * 1000])):
                connection.send(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - start < 3


def test_sleepers_do_not_keep_others_out(folder: Path) -> None:
    with served(folder, stall=0.3):
        sleepers = [connected(folder) for _ in range(40)]
        assert write(RemoteWriter(folder), entries(1)) == 1
        for sleeper in sleepers:
            sleeper.close()


@pytest.mark.parametrize("cut", [0, 5, 24, 100, -1])
def test_a_client_that_breaks_off_does_nothing(folder: Path, cut: int) -> None:
    calls: list[Request] = []

    def handle(request: Request) -> Reply:
        calls.append(request)
        return echo(request)

    with served(folder, handle):
        for _ in range(30):
            with connected(folder) as connection:
                connection.sendall(raw(Delete(ids=["x" * 200]))[:cut])
        RemoteWriter(folder).check()
    assert not calls


def test_garbage_is_refused_and_the_server_lives(folder: Path) -> None:
    random = np.random.default_rng(0)
    good = raw(Write(entries=entries(3), replace=True, fingerprint="f"))
    with served(folder, stall=0.5):
        for turn in range(150):
            bad = bytearray(good)
            for at in random.integers(0, 60 if turn % 2 else len(bad), size=2):
                bad[at] ^= int(random.integers(1, 255))
            with connected(folder) as connection:
                connection.sendall(bad)
                connection.shutdown(socket.SHUT_WR)
                with suppress(EOFError, ConnectionError):
                    frame = receive(connection, stall=5)
                    assert frame.kind in (wire.ERROR, wire.ACCEPTED)
        assert write(RemoteWriter(folder), entries(1)) == 1


def test_another_version_is_refused_by_name(folder: Path) -> None:
    newer = bytearray(raw(Compact()))
    newer[4:6] = struct.pack("<H", 9)
    with served(folder), connected(folder) as connection:
        connection.sendall(newer)
        with pytest.raises(NotAvailable, match="version 9"):
            decode_reply(receive(connection, stall=5))


def test_an_unknown_operation_is_refused_by_name(folder: Path) -> None:
    with served(folder), connected(folder) as connection:
        for part in wire.write_frame(wire.REQUEST, {"operation": "paint"}):
            connection.sendall(part)
        with pytest.raises(NotAvailable, match="paint"):
            decode_reply(receive(connection, stall=5))


def test_a_refusal_reaches_a_client_that_is_still_sending(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = entries(2000, dim=512)
    with elsewhere(folder, echo):
        monkeypatch.setattr(wire, "VERSION", 2)
        with pytest.raises(NotAvailable, match="version"):
            write(RemoteWriter(folder), big)
    monkeypatch.undo()
    monkeypatch.setattr(wire, "MAX_BYTES", 100_000)
    with elsewhere(folder, echo):
        monkeypatch.undo()
        with pytest.raises(InvalidInput, match="at most 100000"):
            write(RemoteWriter(folder), big)


def test_something_else_at_the_socket_is_refused(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "writer.sock"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
                connection.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotAvailable, match="HTTP"):
            RemoteWriter(folder).check()
        thread.join()


def test_a_server_out_of_files_comes_back(folder: Path) -> None:
    with elsewhere(folder, echo) as pid:
        RemoteWriter(folder).check()
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        with pytest.raises(CollectionBusy):
            for _ in range(5):  # a thread that waits already has its file
                RemoteWriter(folder, timeout=0.3).check()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert write(RemoteWriter(folder), entries(1)) == 1


def test_a_server_out_of_threads_goes_on_with_those_it_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with served(folder):
        monkeypatch.setattr(threading.Thread, "start", start)
        for _ in range(3):
            assert write(RemoteWriter(folder), entries(1)) == 1
    assert "No thread" in caplog.text


# --- where the socket lies, and whose it is


@pytest.mark.parametrize("length", [10, 60, 200, 250])
def test_a_long_path_works(tmp_path: Path, length: int) -> None:
    folder = tmp_path / ("x" * length) / ("y" * length)
    folder.mkdir(parents=True)
    for stale in (False, True):
        with served(folder):
            assert write(RemoteWriter(folder), entries(1)) == 1
            assert stat.S_IMODE((folder / "writer.sock").stat().st_mode) == 0o600
        assert not (folder / "writer.sock").exists()
        if not stale:
            (folder / "writer.sock").write_text("left by somebody")


def test_every_length_around_the_limit_works(tmp_path: Path) -> None:
    base = len(str(tmp_path)) + len("/writer.sock") + 1
    for length in range(104 - base, 112 - base):
        folder = tmp_path / ("z" * length)
        folder.mkdir()
        with served(folder) as server:
            assert server.serving
            RemoteWriter(folder).check()


def test_where_no_socket_can_be_made_nobody_is_served(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "writer.sock").mkdir()
    with served(folder) as server:
        assert not server.serving
        with pytest.raises(CollectionBusy):
            RemoteWriter(folder).check()
    assert "cannot be made" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("is_open", [False, True], ids=["mode 0600", "mode 0666"])
def test_another_user_is_refused(is_open: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="handoff"))
    folder.chmod(0o755)
    calls: list[Request] = []

    def handle(request: Request) -> Reply:
        calls.append(request)
        return echo(request)

    def stranger(answers: Any) -> None:
        os.seteuid(65534)
        try:
            write(RemoteWriter(folder), entries(1))
        except TriptychError as error:
            answers.put((type(error).__name__, error.message))
        else:
            answers.put(("nothing", ""))

    try:
        with served(folder, handle):
            if is_open:
                (folder / "writer.sock").chmod(0o666)
            answers = FORK.Queue()
            process = FORK.Process(target=stranger, args=(answers,))
            process.start()
            name, message = answers.get(timeout=10)
            process.join()
            assert name == "NotAvailable"
            assert "65534" in message if is_open else "another user" in message
            assert not calls
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_socket_of_another_user_is_not_trusted() -> None:
    folder = Path(tempfile.mkdtemp(prefix="handoff"))
    folder.chmod(0o777)

    def serve(user: int, ready: Any) -> None:
        os.seteuid(user)
        WriteServer(folder, echo).start()
        (folder / "writer.sock").chmod(0o666)
        ready.set()
        time.sleep(30)

    def ask(answers: Any) -> None:
        os.seteuid(65534)
        try:
            RemoteWriter(folder).check()
        except TriptychError as error:
            answers.put(error.message)

    ready, answers = FORK.Event(), FORK.Queue()
    processes = [
        FORK.Process(target=serve, args=(65533, ready), daemon=True),
        FORK.Process(target=ask, args=(answers,), daemon=True),
    ]
    try:
        processes[0].start()
        assert ready.wait(10)
        processes[1].start()
        assert "user 65533" in answers.get(timeout=10)
        RemoteWriter(folder).check()  # root is anybody's
    finally:
        for process in processes:
            process.kill()
            process.join()
        shutil.rmtree(folder)


# --- forks


def test_a_forked_child_takes_nothing_away(folder: Path) -> None:
    with served(folder) as server:
        RemoteWriter(folder).check()

        def child() -> None:
            assert not server.serving
            server.stop()
            RemoteWriter(folder).check()

        process = FORK.Process(target=child)
        process.start()
        process.join(10)
        assert process.exitcode == 0
        assert write(RemoteWriter(folder), entries(1)) == 1


@pytest.mark.alone
def test_a_child_does_not_keep_the_clients_of_its_dead_parent_waiting(folder: Path) -> None:
    def handle(request: Request) -> Reply:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with elsewhere(folder, handle):
        start = time.monotonic()
        with pytest.raises(NotAvailable, match="unknown"):
            write(RemoteWriter(folder), entries(1))
        with pytest.raises(CollectionBusy):
            RemoteWriter(folder).check()
        assert time.monotonic() - start < 2


# --- the cost


@pytest.mark.slow
@pytest.mark.alone
def test_handing_over_costs_little(folder: Path) -> None:
    def best(batch: list[Entry], turns: int) -> float:
        times = []
        for _ in range(turns):
            start = time.perf_counter()
            write(RemoteWriter(folder), batch)
            times.append(time.perf_counter() - start)
        return min(times)

    with elsewhere(folder, echo):
        assert best(entries(1, dim=512), 300) < 0.001
        assert best(entries(1000, dim=512), 30) < 0.05
