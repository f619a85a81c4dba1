"""What the experts do on real items: their budget, held on the sets alike, and who they serve.

N tokens, D model width, E experts, S data sets.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.encoders.towers.states import TokenStates
from triptych.model import JointModel
from triptych.moe.layer import MoE
from triptych.moe.metrics import load_report, shuffled_specialisation, specialisation
from triptych.moe.plot import plot_experts
from triptych.pairs import Row
from triptych.training.batches import read_texts, text_ids
from triptych.training.build import TrainingContext
from triptych.training.features import CUT, ViewCache

PER_SET = 400  # rows of a set, which are enough for a mean within a hundredth


def routed_tokens(
    model: JointModel,
    context: TrainingContext,
    *,
    rows: Mapping[str, Sequence[Row]],
    caches: Mapping[str, ViewCache],
) -> dict[str, Tensor]:
    """Return what the router sees of each set, tokens_ND of texts and of pictures."""
    found: dict[str, list[Tensor]] = {name: [] for name in rows}
    with torch.inference_mode():
        for name, some in rows.items():
            texts = [text for row in some[:PER_SET] for text in row.texts[:2]]
            for start in range(0, len(texts), 128):
                ids = text_ids(context.tokenizer, texts[start : start + 128])
                found[name].append(_real(read_texts(model, ids), model.norm_text))
            if name not in caches:
                continue
            for chunk in torch.split(caches[name].maps(0)[:PER_SET].float(), 64):
                looked = model.look(chunk.permute(0, 3, 1, 2), after=CUT)
                patches = looked._replace(tokens_BTD=model.head.patches(looked.tokens_BTD))
                found[name].append(_real(patches, model.norm_picture))
    return {name: torch.cat(parts) for name, parts in found.items() if parts}


def _real(states: TokenStates, norm: torch.nn.LayerNorm) -> Tensor:
    normed: Tensor = norm(states.tokens_BTD)
    return normed[states.mask_BT]


def calibrate(moe: MoE, tokens: Mapping[str, Tensor]) -> None:
    """Freeze the threshold at which the budget holds over all sets, for the averaged weights.

    Training held it for weights that moved; the average of the sets' means and the mean over all
    tokens are both brought to it, as near as one number can.
    """
    router, budget = moe.router, moe.config.budget
    low, high = 0.2 * router.threshold.item(), 5.0 * router.threshold.item()
    rises = _mean_count(moe, tokens, high) > _mean_count(moe, tokens, low)
    for _ in range(24):
        middle = (low + high) / 2
        if (_mean_count(moe, tokens, middle) > budget) == rises:
            high = middle
        else:
            low = middle
    router.threshold.fill_((low + high) / 2)


def _mean_count(moe: MoE, tokens: Mapping[str, Tensor], threshold: float) -> float:
    moe.router.threshold.fill_(threshold)
    counts = [counted(moe, some_ND) for some_ND in tokens.values()]
    by_set = statistics.fmean(float(count_N.mean()) for count_N in counts)
    return (by_set + float(np.concatenate(counts).mean())) / 2


def counted(moe: MoE, tokens_ND: Tensor) -> NDArray[np.float64]:
    """Return how many experts each token has."""
    with torch.inference_mode():
        chosen_NK = moe.router(tokens_ND).chosen_NK
    return np.asarray(chosen_NK.sum(dim=1), dtype=np.float64)


def report(moe: MoE, tokens: Mapping[str, Tensor], *, picture: Path) -> dict[str, object]:
    """Return budget, load and specialisation over the sets, and draw them."""
    counts = {name: counted(moe, some_ND) for name, some_ND in tokens.items()}
    with torch.inference_mode():
        load_SE = np.stack([moe.router(some_ND).load_E.numpy() for some_ND in tokens.values()])
    union_N = np.concatenate(list(counts.values()))
    load = load_report(load_SE.sum(axis=0))
    plot_experts(load_SE, names=list(tokens), path=picture)
    return {
        "active": {name: round(float(count_N.mean()), 3) for name, count_N in counts.items()},
        "active_union": round(float(union_N.mean()), 3),
        "active_std": round(float(union_N.std()), 3),
        "max_over_mean_load": round(load.imbalance, 3),
        "dead": load.dead,
        "entropy": round(load.entropy, 4),
        "specialisation": round(specialisation(load_SE), 4),
        "specialisation_shuffled": round(shuffled_specialisation(load_SE), 4),
    }
