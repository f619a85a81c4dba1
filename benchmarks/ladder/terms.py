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
from triptych.encoders.scorers.maxsim import maxsim
from triptych.encoders.structure.word_graph import Link
from triptych.encoders.towers.states import TokenStates, rows_of
from triptych.training.alignment import contrast, token_loss
from triptych.training.losses import both_ways, cross_modal, joint
from triptych.training.objective import Terms, regularisation, sparsity

JOINT = 0.3
QUERIES, CANDIDATES = 32, 4  # texts whose pairs are scored, and pictures for each
WORDED, GRAPHS = 64, 16  # pairs of which words are aligned with places, graphs with each other
LATE, ALIGNED, ROUTER_Z, TEACHER_HEAT = 0.5, 0.25, 0.01, 2.0


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
    wanted = cross_modal(
        pictures.emb_BM, texts.emb_BM, group_I=group_B, group_T=owner_T, scale=scale
    )
    all_NM = torch.cat([pictures.emb_BM, texts.emb_BM])
    wanted = wanted + JOINT * joint(all_NM, group_N=torch.cat([group_B, owner_T]), scale=scale)
    masks: list[Tensor] = []
    if model.rung.cross:
        learnt, mask = _interaction(model, texts, pictures, owner_T=owner_T)
        wanted, masks = wanted + learnt, [mask]
    if model.rung.aligned:
        wanted = wanted + ALIGNED * _pixel(model, texts, pictures, owner_T=owner_T)
        wanted = wanted + ALIGNED * _structure(model, texts, pictures, owner_T, links)
    return Terms(
        contrastive=wanted,
        sparsity=sparsity(None if routed is None else routed.budget_loss, masks=masks),
        regularisation=regularisation(
            balance_loss=None if routed is None else routed.balance_loss,
            router_z_loss=None if routed is None else ROUTER_Z * routed.router_z_loss,
            emb_NM=all_NM,
        ),
    )


def matching(model: Ladder, text: TokenStates, picture: TokenStates, *, owner_T: Tensor) -> Tensor:
    """Among the batch a text finds its picture by its words, and back; learns nothing else.

    `text` and `picture` are the towers' own states.
    """
    logits_TB = model.matcher(model.matcher.text(text), model.matcher.picture(picture))
    own_TB = owner_T[:, None] == torch.arange(logits_TB.shape[1])[None, :]
    return both_ways(logits_TB, positive_QN=own_TB)


def _interaction(
    model: Ladder, texts: Side, pictures: Side, *, owner_T: Tensor
) -> tuple[Tensor, Tensor]:
    """The scorer learns what the embeddings miss, the embeddings what both together say.

    Its late interaction learns from the batch, the whole of it from a text's own picture among the
    nearest others. Also returns its soft mask of the right pairs.
    """
    with torch.no_grad():
        cosine_QB = texts.emb_BM[:QUERIES] @ pictures.emb_BM.T
        own_QB = owner_T[:QUERIES, None] == torch.arange(cosine_QB.shape[1])[None, :]
        chosen_QK = cosine_QB.masked_fill(own_QB, torch.inf).topk(CANDIDATES, dim=1).indices
    at_Q = torch.arange(len(chosen_QK)).repeat_interleave(CANDIDATES)
    found = model.scorer(rows_of(texts.states, at_Q), rows_of(pictures.states, chosen_QK.flatten()))
    scores_QK = found.scores_B.view(chosen_QK.shape)
    logits_QK = model.scale() * torch.einsum(
        "qm,qkm->qk", texts.emb_BM[:QUERIES], pictures.emb_BM[chosen_QK]
    )
    together_QK = scores_QK + logits_QK.detach()
    # the right one lies first: infinity was the greatest
    first_Q = torch.zeros(len(chosen_QK), dtype=torch.int64)
    learnt = functional.cross_entropy(together_QK, first_Q)
    told = functional.kl_div(
        (logits_QK / TEACHER_HEAT).log_softmax(dim=1),
        (together_QK.detach() / TEACHER_HEAT).softmax(dim=1),
        reduction="batchmean",
    )
    assert found.spatial_BTP is not None
    words, places = _first_pairs(texts, pictures, owner_T, count=WORDED)
    scorer = model.scorer
    late = contrast(
        maxsim(
            TokenStates(scorer.enter_text(words), words.mask_BT),
            TokenStates(scorer.enter_picture(places), places.mask_BT),
        ),
        positive_QN=torch.eye(len(words.mask_BT), dtype=torch.bool),
        scale=scorer.log_scale.exp(),
    )
    loss = 0.5 * learnt + 0.5 * TEACHER_HEAT**2 * told + LATE * late
    return loss, found.spatial_BTP[::CANDIDATES]


def _pixel(model: Ladder, texts: Side, pictures: Side, *, owner_T: Tensor) -> Tensor:
    """Words come to lie near the places that they name."""
    words, places = _first_pairs(texts, pictures, owner_T, count=WORDED)
    return token_loss(
        TokenStates(model.word(words.tokens_BTD), words.mask_BT),
        TokenStates(model.place(places.tokens_BTD), places.mask_BT),
        positive_QN=torch.eye(len(words.mask_BT), dtype=torch.bool),
        scale=model.scale(),
    )


def _structure(
    model: Ladder,
    texts: Side,
    pictures: Side,
    owner_T: Tensor,
    links: Sequence[Sequence[Link]],
) -> Tensor:
    """The graph of a text fits the graph of its picture better than others."""
    words, places = _first_pairs(texts, pictures, owner_T, count=GRAPHS)
    graphs = model.structure.texts(words, links)
    patches = model.structure.pictures(places)
    return contrast(
        model.structure.scores(graphs, patches),
        positive_QN=torch.eye(len(words.mask_BT), dtype=torch.bool),
        scale=torch.tensor(10.0),
    )


def _first_pairs(
    texts: Side, pictures: Side, owner_T: Tensor, *, count: int
) -> tuple[TokenStates, TokenStates]:
    """The first `count` pictures, each with the first of its texts; texts lie by picture."""
    at_B = torch.arange(count)
    return rows_of(texts.states, torch.searchsorted(owner_T, at_B)), rows_of(pictures.states, at_B)
