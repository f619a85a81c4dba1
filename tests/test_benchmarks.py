"""The benchmarks' own arithmetic: a wrong truth would make every figure wrong."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import million
from benchmarks.experts.layer_time import Machine
from benchmarks.experts.served import numpy_loop
from benchmarks.experts.training import DOMAINS, Task
from benchmarks.headings import Place, Question, _pages, _questions
from benchmarks.peers.corpus import CHUNK, DIM, GROUPS, Corpus, Mixture, recall
from benchmarks.rounding import _bytes
from benchmarks.wrk import load
from triptych.moe.layer import MoE, MoEConfig
from triptych.training.features import to_pixels


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(12_345, folder=tmp_path)


def test_vectors_are_units_and_the_same_again() -> None:
    first, again = Mixture(seed=3).chunk(1), Mixture(seed=3).chunk(1)
    assert (first == again).all()
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert not np.allclose(first, Mixture(seed=3).chunk(2))
    assert first.shape == (CHUNK, DIM)


def test_a_part_is_of_the_whole_and_wraps_around(corpus: Corpus) -> None:
    part = corpus.part(12_340, 12_350)
    assert (part[:5] == corpus.vectors_NM[12_340:]).all()
    assert (part[5:] == corpus.vectors_NM[:5]).all()


def test_truth_is_what_a_full_sort_finds(corpus: Corpus) -> None:
    scores = np.asarray(corpus.vectors_NM) @ corpus.queries_QM[:20].T
    assert recall(np.argsort(-scores, axis=0)[:10].T.tolist(), corpus.truth_QK[:20]) == 1


@pytest.mark.parametrize("field", GROUPS)
def test_truth_within_a_group(corpus: Corpus, field: str) -> None:
    for at in (0, 7, 123, 999):
        group = np.arange(at % GROUPS[field], corpus.count, GROUPS[field])
        scores = corpus.vectors_NM[group] @ corpus.queries_QM[at]
        assert set(group[np.argsort(-scores)[:10]]) == set(corpus.truth_within(field)[at])


def test_recall_is_the_share_found() -> None:
    assert recall([[1, 2], [9, 3]], np.array([[2, 1], [3, 4]])) == 0.75


def test_a_roofline_is_the_greater_of_bytes_and_products() -> None:
    moe = MoE(MoEConfig(width=32, hidden=16))
    tokens_ND = torch.randn(50, 32)
    load_E = moe.router(tokens_ND).load_E
    machine = Machine(megabytes=1)
    machine.read, machine.rate, machine.onednn_rate = 1e9, 1e30, 1e30
    reading = int((load_E > 0).sum()) * (32 * 16 + 16 * 32) * 4 / 1e9
    assert machine.roofs(moe, load_E) == pytest.approx((reading, reading))
    machine.read, machine.rate, machine.onednn_rate = 1e30, 1e9, 2e9
    products = 2 * int(load_E.sum()) * (32 * 16 + 16 * 32) / 1e9
    assert machine.roofs(moe, load_E) == pytest.approx((products, products / 2))


def test_the_loop_in_numpy_is_the_layer() -> None:
    moe = MoE(MoEConfig(width=32, hidden=16))
    tokens_ND = torch.randn(9, 32)
    with torch.no_grad():
        found = moe.router(tokens_ND)
        truth = moe(tokens_ND[None], torch.ones(1, 9, dtype=torch.bool)).tokens_BTD[0]
    gates_NE = torch.zeros(9, 128).scatter(1, found.ids_NK, found.gates_NK * found.chosen_NK)
    weights = moe.weights()
    made = numpy_loop(
        tokens_ND.numpy(),
        gates_NE.numpy(),
        weights.widen_EDH.transpose(0, 2, 1),
        weights.narrow_EHD.transpose(0, 2, 1),
    )
    np.testing.assert_allclose(made, truth.numpy(), atol=1e-5)


def test_the_made_up_domains_are_the_same_again_and_unequal() -> None:
    tokens_ND, target_ND, domain_N = Task().batch(4000, seed=3)
    again = Task().batch(4000, seed=3)
    assert torch.equal(tokens_ND, again[0]) and torch.equal(target_ND, again[1])
    counts = domain_N.bincount(minlength=DOMAINS)
    assert counts[0] > 5 * counts[-1] > 0


@pytest.mark.slow
def test_the_million_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    million.main(20_500, queries=50, work=tmp_path)
    shown = capsys.readouterr().out
    assert "keeps 0.1 %: recall 1.0000" in shown
    assert "DIFFERENT" not in shown


def test_pixels_go_into_the_graph_as_the_bytes_they_were() -> None:
    bytes_BHWC = np.arange(2 * 6 * 7 * 3, dtype=np.uint8).reshape(2, 6, 7, 3)
    assert (_bytes(to_pixels(bytes_BHWC)) == bytes_BHWC).all()


@contextmanager
def answering(status: int, seen: list[tuple[bytes, str | None]]) -> Iterator[str]:
    """Yield the address of a server that answers all alike, and notes what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((body, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_wrk_sends_the_bodies_in_turn_and_all_must_be_answered() -> None:
    assert shutil.which("wrk"), "run scripts/find-program wrk"
    seen: list[tuple[bytes, str | None]] = []
    bodies = [f'{{"at":{at}}}' for at in range(3)]
    with answering(200, seen) as url:
        found = load(url, bodies, connections=1, seconds=1, headers={"Authorization": "me"})
    sent = [body.decode() for body, _ in seen[:9]]  # wrk keeps the first to look at
    assert sent == (bodies * 4)[1:10]
    assert {said for _, said in seen} == {"me"}
    assert found.rate == pytest.approx(len(seen), rel=0.3) and 0 < found.p50_ms < 1000
    with answering(503, seen) as url, pytest.raises(AssertionError, match="Non-2xx"):
        load(url, bodies, connections=1, seconds=1)


def test_a_sentence_with_a_link_asks_for_the_section_that_it_leads_to(tmp_path: Path) -> None:
    one, other = tmp_path / "a.md", tmp_path / "b.md"
    sentence = "The ship burns [a lot of coal](b.md#coal) every day."
    one.write_text(
        f"# Ship\n\nFirst. {sentence} Then [on](#ship) and [out](https://x.y) of the port.\n"
    )
    other.write_text("# Fuel\n\n## Coal\n\nIt is black.\n\n## Wood\n\nIt floats.\n")
    pages = {path: page for path in (one, other) for page in _pages(path)}
    at, text = one.read_text().index("b.md"), other.read_text()
    asker = Place(str(one), at, at + 1)
    answer = Place(str(other), text.index("## Coal"), text.index("## Wood"))
    words = "The ship burns a lot of coal every day."
    assert list(_questions(pages, tmp_path)) == [Question(words, asker, answer)]
