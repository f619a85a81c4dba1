"""Bodies that nobody wants: their sender hears why, and cannot send without an end."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api.live import Live, read_all, serving
from triptych.api.config import Limits, Times

MIB = 2**20
SMALL = Limits(body_bytes=4 * MIB, unread_bytes=4 * MIB, head_bytes=8_000)
HEAD = (
    b"POST /v1/collections/photos/search HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
)
OURS, WRONG = HEAD % b"localhost", HEAD % b"elsewhere.example"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("unread"), limits=SMALL) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        yield live


def flood(live: Live, head: bytes, piece: bytes, *, most: int) -> tuple[int, bytes]:
    """Send a head, then pieces until the line is cut; return how many bytes, and what was said."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connected:
        sent = 0
        try:
            connected.sendall(head)
            while sent < most:
                sent += connected.send(piece)
        except OSError:
            pass
        connected.settimeout(2)
        return sent, read_all(connected)


@pytest.mark.parametrize(
    ("head", "said"), [(WRONG, b" 403 "), (OURS, b" 413 ")], ids=["403", "413"]
)
def test_who_was_answered_is_read_up_to_a_limit(strict: Live, head: bytes, said: bytes) -> None:
    length = b"Content-Length: 99999999999\r\n\r\n"
    sent, reply = flood(strict, head + length, b"x" * 65_536, most=256 * MIB)
    assert 4 * MIB <= sent < 64 * MIB  # the system's own buffers hold some of it
    assert said in reply[:20]
    assert reply.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("length", [65_536, 4 * MIB - 300_000])
def test_who_sends_all_before_he_reads_is_told_why(strict: Live, length: int) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connected:
        connected.sendall(WRONG + b"Content-Length: %d\r\n\r\n" % length)
        for _ in range(0, length, 65_536):
            connected.sendall(b"x" * min(65_536, length))
            length -= 65_536
        # and the connection is as good as before
        connected.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        reply = read_all(connected)
    assert reply.split()[1] == b"403"
    assert b" 200 OK\r\n" in reply


@pytest.mark.parametrize("length", [4 * MIB + 1, None], ids=["declared", "chunked"])
def test_the_answer_to_what_may_be_cut_says_that_it_ends_the_line(
    strict: Live, length: int | None
) -> None:
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    body = b"1\r\nx\r\n0\r\n\r\n" if length is None else b"x" * length
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connected:
        connected.sendall(WRONG + framing + b"\r\n\r\n")
        answer = connected.recv(65_536)
        connected.sendall(body)  # is read all the same, and then the line ends
        rest = read_all(connected)
    head, _, _ = answer.partition(b"\r\n\r\n")
    assert answer.split()[1] == b"403"
    assert head.lower().count(b"connection: close") == 1
    assert rest == b""


def test_a_body_that_is_read_ends_no_line(strict: Live) -> None:
    body = b'{"query": "x"}'
    chunked = OURS + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connected:
        for _ in range(2):
            connected.sendall(chunked % (len(body), body))
            answer = connected.recv(65_536)
            assert answer.split()[1] == b"200"
            assert b"connection: close" not in answer.lower()


def test_who_was_answered_and_sends_too_slowly_gets_no_second_answer(tmp_path: Path) -> None:
    times = Times(body=1.0, bytes_per_second=MIB, stall=1.0)
    with serving(tmp_path, times=times) as live:
        reply = live.raw(WRONG + b"Content-Length: 1000\r\n\r\n{", wait=8)
    assert reply.count(b"HTTP/1.1 ") == 1
    assert b" 403 " in reply[:20]


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"0\r\n", b"X-A: " + b"a" * 1_000 + b"\r\n"),
        (b"0\r\nX-A: ", b"a" * 1_000),
        (b"1;", b"a" * 1_000),
        (b"1;a=", b'"' + b"a" * 1_000 + b'"'),
    ],
    ids=["trailers", "a trailer", "an extension", "a quoted extension"],
)
@pytest.mark.parametrize("head", [WRONG, OURS], ids=["answered", "not answered"])
def test_what_frames_a_body_is_bounded(
    strict: Live, head: bytes, begin: bytes, piece: bytes
) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    sent, reply = flood(strict, head + chunked + begin, piece, most=64 * MIB)
    assert sent < 16 * MIB
    assert not reply or reply.split()[1] in (b"400", b"403", b"431")


def test_extensions_between_pieces_of_a_body_are_no_progress(tmp_path: Path) -> None:
    times = Times(body=1.0, bytes_per_second=1_000, stall=5.0)
    chunk = b"1;" + b"a" * 2_000 + b"\r\n \r\n"
    with serving(tmp_path, times=times) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        chunked = OURS + b"Transfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection(("127.0.0.1", live.port), timeout=0.01) as connected:
            connected.sendall(chunked)
            reply, until = b"", time.monotonic() + 8
            while not reply and time.monotonic() < until:
                with suppress(OSError):  # it has hung up, or says nothing yet
                    connected.sendall(chunk)  # 200 kB a second of which 100 bytes are the body's
                with suppress(OSError):
                    reply = connected.recv(65_536)
    assert reply.split()[1] == b"408"


def test_a_body_in_the_smallest_chunks_is_taken(strict: Live) -> None:
    body = b'{"query": "x"}' + b" " * 40_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Sum: 1\r\n\r\n"
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connected:
        connected.sendall(
            OURS + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        )
        reply = read_all(connected)
    assert reply.split()[1] == b"200"
