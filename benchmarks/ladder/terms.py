"""What a rung is trained by: contrast, what interaction adds to it, and the experts' own losses.

B pictures, T texts of the batch or tokens of a text, Q texts that are scored in pairs, K candidates
of each, M embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.ladder.model import Both, Ladder, Side
from triptych.encoders.base import TokenStates
from triptych.encoders.entrance import States
from triptych.encoders.maxsim import maxsim
from triptych.encoders.word_graph import Link
from triptych.training.losses import attract, cross_modal, joint
from triptych.training.objective import Terms, regularisation, sparsity

JOINT = 0.3
QUERIES, CANDIDATES = 32, 4  # texts whose pairs are scored, and pictures for each
WORDED, GRAPHS = 64, 16  # pairs of which words are aligned with places, graphs with each other
ALIGNED, ROUTER_Z, TEACHER_HEAT = 0.25, 0.01, 2.0


def terms_of(
    model: Ladder,
    both: Both,
    *,
    owner_T: Tensor,
    links: Sequence[Sequence[Link]],
) -> Terms:
    """Return the terms of a batch; `links` are those of the first GRAPHS pictures' first texts."""
    texts, pictures, routed = both
    group_B, scale = torch.arange(len(pictures.emb_BM)), model.scale()
    contrast = cross_modal(
        pictures.emb_BM, texts.emb_BM, group_I=group_B, group_T=owner_T, scale=scale
    )
    all_NM = torch.cat([pictures.emb_BM, texts.emb_BM])
    contrast = contrast + JOINT * joint(all_NM, group_N=torch.cat([group_B, owner_T]), scale=scale)
    masks: list[Tensor] = []
    if model.rung.cross:
        learnt, mask = _interaction(model, texts, pictures, owner_T=owner_T)
        contrast, masks = contrast + learnt, [mask]
    if model.rung.aligned:
        contrast = contrast + ALIGNED * _pixel(model, texts, pictures, owner_T=owner_T)
        contrast = contrast + ALIGNED * _structure(model, texts, pictures, owner_T, links)
    return Terms(
        contrastive=contrast,
        sparsity=sparsity(None if routed is None else routed.budget_loss, masks=masks),
        regularisation=regularisation(
            balance_loss=None if routed is None else routed.balance_loss,
            router_z_loss=None if routed is None else ROUTER_Z * routed.router_z_loss,
            emb_NM=all_NM,
        ),
    )


def _interaction(
    model: Ladder, texts: Side, pictures: Side, *, owner_T: Tensor
) -> tuple[Tensor, Tensor]:
    """The scorer learns to tell a text's picture from the nearest others; the embeddings, from it.

    Also returns the scorer's soft mask of the right pairs.
    """
    with torch.no_grad():
        cosine_QB = texts.emb_BM[:QUERIES] @ pictures.emb_BM.T
        own_QB = owner_T[:QUERIES, None] == torch.arange(cosine_QB.shape[1])[None, :]
        chosen_QK = cosine_QB.masked_fill(own_QB, torch.inf).topk(CANDIDATES, dim=1).indices
    at_Q = torch.arange(len(chosen_QK)).repeat_interleave(CANDIDATES)
    found = model.scorer(_rows(texts.states, at_Q), _rows(pictures.states, chosen_QK.flatten()))
    scores_QK = found.scores_B.float().view(chosen_QK.shape)
    first_Q = torch.zeros(len(chosen_QK), dtype=torch.int64)  # the right one scores infinity above
    learn = functional.cross_entropy(scores_QK, first_Q)
    logits_QK = model.scale() * torch.einsum(
        "qm,qkm->qk", texts.emb_BM[:QUERIES], pictures.emb_BM[chosen_QK]
    )
    soft_QK = (scores_QK.detach() / TEACHER_HEAT).softmax(dim=1)
    told = functional.kl_div(
        (logits_QK / TEACHER_HEAT).log_softmax(dim=1), soft_QK, reduction="batchmean"
    )
    assert found.spatial_BTP is not None
    return 0.5 * learn + TEACHER_HEAT**2 * 0.5 * told, found.spatial_BTP[::CANDIDATES]


def _rows(states: States, at_N: Tensor) -> States:
    return TokenStates(states.tokens_BTD[at_N], states.mask_BT[at_N])


def _pixel(model: Ladder, texts: Side, pictures: Side, *, owner_T: Tensor) -> Tensor:
    """Every word finds its place: a contrast of late interaction, one text for each picture."""
    first_B = _first(owner_T)[:WORDED]
    words = _rows(texts.states, first_B)
    words = TokenStates(model.word(words.tokens_BTD).float(), words.mask_BT)
    places = _rows(pictures.states, torch.arange(len(first_B)))
    places = TokenStates(model.place(places.tokens_BTD).float(), places.mask_BT)
    logits_BB = model.scale() * maxsim(words, places)
    right_BB = torch.eye(len(first_B), dtype=torch.bool)
    there = attract(logits_BB, positive_QN=right_BB)
    return (there + attract(logits_BB.T, positive_QN=right_BB)) / 2


def _structure(
    model: Ladder,
    texts: Side,
    pictures: Side,
    owner_T: Tensor,
    links: Sequence[Sequence[Link]],
) -> Tensor:
    """The graph of a text fits the graph of its picture better than others."""
    some_T = _first(owner_T)[:GRAPHS]
    words = _rows(texts.states, some_T)
    places = _rows(pictures.states, torch.arange(len(some_T)))
    graphs = model.structure.texts(TokenStates(words.tokens_BTD.float(), words.mask_BT), links)
    patches = model.structure.pictures(TokenStates(places.tokens_BTD.float(), places.mask_BT))
    logits_QN = 10.0 * model.structure.scores(graphs, patches)
    right_QN = torch.eye(len(some_T), dtype=torch.bool)
    there = attract(logits_QN, positive_QN=right_QN)
    return (there + attract(logits_QN.T, positive_QN=right_QN)) / 2


def _first(owner_T: Tensor) -> Tensor:
    """The index of each picture's first text; texts lie by picture."""
    return torch.searchsorted(owner_T, torch.arange(int(owner_T.max()) + 1))
