"""The layer in ONNX Runtime is the layer in torch, and computes the chosen experts only."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from triptych.encoders.runtime import onnxruntime
from triptych.moe.layer import MoE, MoEConfig
from triptych.moe.router import RouterKind
from triptych.moe.serving import MoEWeights, write_moe
from triptych.training.export.graph import Graph

CONFIG = MoEConfig(width=32, hidden=16, shared_hidden=8)


def layer(config: MoEConfig = CONFIG) -> MoE:
    torch.manual_seed(4)
    moe = MoE(config)
    moe.router.bias_E.normal_(std=0.2)
    moe.router.temperature.fill_(0.8)
    return moe


def session(weights: MoEWeights, *, quantised: bool) -> onnxruntime.InferenceSession:
    graph = Graph(quantised=quantised)
    width = weights.router_ED.shape[1]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["b", "t", width]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["b", "t"]),
    ]
    output = write_moe(graph, weights, tokens="tokens", mask="mask").tokens
    model = graph.model(inputs=inputs, outputs={"made": (output, ["b", "t", width])})
    return onnxruntime.InferenceSession(model.SerializeToString())


def run(model: onnxruntime.InferenceSession, tokens_BTD: Tensor, mask_BT: Tensor) -> np.ndarray:
    feed = {"tokens": tokens_BTD.numpy(), "mask": mask_BT.numpy()}
    return np.asarray(model.run(None, feed)[0])


def batch(*lengths: int) -> tuple[Tensor, Tensor]:
    tokens_BTD = torch.randn(len(lengths), max(lengths), 32, generator=torch.manual_seed(5))
    return tokens_BTD, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def through_bytes(moe: MoE) -> MoE:
    """The layer whose experts' weights were rounded as the graph stores them."""
    with torch.no_grad():
        for weight in (moe.experts.widen_EDH, moe.experts.narrow_EHD):
            scale = weight.abs().amax(dim=1, keepdim=True) / 127
            weight.copy_((weight / scale).round() * scale)
    return moe


@pytest.mark.parametrize("kind", get_args(RouterKind))
@pytest.mark.parametrize("quantised", [False, True])
def test_it_equals_torch(kind: RouterKind, quantised: bool) -> None:
    moe = layer(replace(CONFIG, router=kind))
    model = session(moe.weights(), quantised=quantised)
    tokens_BTD, mask_BT = batch(20, 3, 11)
    with torch.no_grad():
        truth = (through_bytes(moe) if quantised else moe)(tokens_BTD, mask_BT)
    assert 2 < truth.num_active < 8
    np.testing.assert_allclose(
        run(model, tokens_BTD, mask_BT), truth.tokens_BTD.numpy(), atol=1e-5, rtol=1e-5
    )


def test_eight_bits_stay_near_the_floats() -> None:
    moe = layer()
    tokens_BTD, mask_BT = batch(40, 40)
    exact_BTD = moe(tokens_BTD, mask_BT).tokens_BTD.detach().numpy()
    found_BTD = run(session(moe.weights(), quantised=True), tokens_BTD, mask_BT)
    cosine = (exact_BTD * found_BTD).sum() / np.linalg.norm(exact_BTD) / np.linalg.norm(found_BTD)
    assert 0.999 < cosine < 1


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_alone_equals_in_a_batch(quantised: bool, size: int) -> None:
    model = session(layer().weights(), quantised=quantised)
    tokens_BTD, mask_BT = batch(*[1 + at % 14 for at in range(size)])
    together_BTD = run(model, tokens_BTD, mask_BT)
    for at in range(size):
        length = int(mask_BT[at].sum())
        alone = run(model, tokens_BTD[at : at + 1, :length], mask_BT[at : at + 1, :length])
        np.testing.assert_allclose(alone[0], together_BTD[at, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantised", [False, True])
def test_an_expert_that_is_not_chosen_is_not_computed(quantised: bool) -> None:
    """NaN in all experts but those that torch chose leaves no trace."""
    moe = layer()
    tokens_BTD, mask_BT = batch(6, 2)
    routing = moe.router(tokens_BTD[mask_BT])
    chosen = set(routing.ids_NK[routing.chosen_NK].tolist())
    clean = run(session(moe.weights(), quantised=quantised), tokens_BTD, mask_BT)
    others = [expert for expert in range(128) if expert not in chosen]
    assert others
    with torch.no_grad():
        moe.experts.widen_EDH[others] = torch.inf if quantised else torch.nan
    with np.errstate(invalid="ignore"):
        model = session(moe.weights(), quantised=quantised)
    np.testing.assert_array_equal(run(model, tokens_BTD, mask_BT), clean)


@pytest.mark.parametrize("quantised", [False, True])
def test_padding_and_what_is_not_finite_change_nothing_else(quantised: bool) -> None:
    model = session(layer().weights(), quantised=quantised)
    tokens_BTD, mask_BT = batch(6, 4)
    clean_BTD = run(model, tokens_BTD, mask_BT)
    tokens_BTD[1, 4:] = torch.nan
    tokens_BTD[0, 2, 7] = torch.nan
    tokens_BTD[0, 3, 1] = torch.inf
    found_BTD = run(model, tokens_BTD, mask_BT)
    assert not np.isfinite(found_BTD[0, [2, 3]]).any()
    assert (found_BTD[1, 4:] == 0).all()
    np.testing.assert_allclose(found_BTD[0, [0, 1, 4, 5]], clean_BTD[0, [0, 1, 4, 5]], atol=1e-6)
    np.testing.assert_allclose(found_BTD[1], clean_BTD[1], atol=1e-6)


@pytest.mark.parametrize("quantised", [False, True])
def test_nothing_but_padding_gives_zeros(quantised: bool) -> None:
    model = session(layer().weights(), quantised=quantised)
    tokens_BTD, mask_BT = batch(3, 3)
    assert (run(model, tokens_BTD, torch.zeros_like(mask_BT)) == 0).all()
