"""The ladder's own arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("torch_geometric")

from benchmarks.ladder.features import CHANNELS, PLACES, WIDTH
from benchmarks.ladder.model import ASIDE, RUNGS, Ladder
from benchmarks.ladder.report import reached, report, weigh
from benchmarks.ladder.terms import matching
from triptych.encoders.towers.states import TokenStates


def record(name: str, seed: int, **changed: Any) -> dict[str, Any]:
    figures = dict.fromkeys(("t2i@1", "t2i@10", "i2t@1", "i2t@10", "first_caption@1"), 20.0)
    return {
        "rung": name,
        "seed": seed,
        "steps": 120,
        "batch": 128,
        "training_cpu_s": 30.0,
        "density": 1.0,
        "num_active": 3.2,
        "curve": [[20, 10.0], [40, 30.0]],
        "gradients": [{"step": 20, "enter": 1.0, "middle": 1.0, "pool": 1.0}],
        **figures,
        **changed,
    }


def test_where_a_curve_first_reaches_a_recall() -> None:
    curve = [(20, 10.0), (40, 30.0), (60, 20.0)]
    assert reached(curve, 20.0) == 30.0
    assert reached(curve, 5.0) == 10.0
    assert reached(curve, 31.0) is None


def test_what_a_rung_weighs() -> None:
    dense, experts, sparse = (weigh(RUNGS[at], [record("", 0, density=0.3)]) for at in (0, 3, 4))
    assert (
        dense[0]
        == dense[1]
        == sum(p.numel() for p in Ladder(RUNGS[0]).embedding_parameters().values())
    )
    assert dense[2] == 4 * dense[0]
    routed = 128 * 2 * 256 * 64
    assert experts[0] - experts[1] == pytest.approx(routed * (1 - 3.2 / 128))
    assert sparse[0] == experts[0]
    assert 0.3 < sparse[1] / experts[1] < 0.32 and 0.3 < sparse[2] / experts[2] < 0.35
    whole = dict.fromkeys(Ladder(RUNGS[4]).embedding_parameters(), 1.0)
    uneven = {**whole, "moe.experts.widen_EDH": 0.5}
    some = weigh(RUNGS[4], [record("", 0, density=0.3, densities=uneven)])
    assert some[1] == pytest.approx(experts[1] - 128 * 256 * 64 * 0.5 * 3.2 / 128, abs=1)


def test_matched_words_teach_the_matcher_alone() -> None:
    model = Ladder(ASIDE[-1])
    text = TokenStates(torch.randn(3, 5, WIDTH), torch.ones(3, 5, dtype=torch.bool))
    picture = TokenStates(torch.randn(3, PLACES, CHANNELS), torch.ones(3, PLACES, dtype=torch.bool))
    matching(model, text, picture, owner_T=torch.arange(3)).backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learnt and all(name.startswith("matcher.") for name in learnt)
    assert not learnt & model.embedding_parameters().keys()


def test_gains_are_of_the_same_seed_and_misses_are_printed() -> None:
    dual, *_, moe, sparse = (rung.name for rung in RUNGS)
    runs = [
        record(dual, 0, **{"t2i@1": 10.0}),
        record(dual, 1, **{"t2i@1": 20.0}),
        record(moe, 1, **{"t2i@1": 21.0, "t2i@10": 50.0, "rerank@1": 24.6}),
        record(sparse, 1, density=0.3, **{"t2i@10": 40.0, "rerank@1": 22.0}),
    ]
    text = report(runs)
    assert "over the dual tower: + 128 experts" in text
    assert "+5.0 %" in text and "+23.0 %" in text and "80.0 %" in text
    assert "+30.0 %" not in text
    runs.append(record(ASIDE[1].name, 0, **{"t2i@1": 13.0}))
    assert "+30.0 %" in report(runs)
    assert report([]) == "No run yet."
