"""Contrastive losses: all that belongs to one group attracts, the rest of the batch repels.

Each takes `rows`: the scores are then made that many anchors at a time and made again on the way
back, so that memory grows with the batch, not with its square; loss and gradients are the same.

Q anchors, N candidates, R the anchors of one chunk, I pictures, T texts, M embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from triptych.errors import InvalidInput

PREFIXES: Mapping[int, float] = MappingProxyType({512: 1.0, 256: 1.0, 128: 1.0, 64: 1.0})


def logits(anchors_QM: Tensor, candidates_NM: Tensor, *, scale: Tensor | float) -> Tensor:
    """Return logits_QN, scaled cosines, in float32 at least, under autocast too.

    They are some tens large, where bfloat16 knows eighths only.
    """
    dtype = torch.promote_types(anchors_QM.dtype, torch.float32)
    with torch.autocast(anchors_QM.device.type, enabled=False):
        return scale * anchors_QM.to(dtype) @ candidates_NM.to(dtype).T


def attract(logits_QN: Tensor, *, positive_QN: Tensor, ignored_QN: Tensor | None = None) -> Tensor:
    """The mean over positives of -log p, each against the negatives alone.

    Positives do not compete with each other: a picture's five captions may all be near it. With
    one positive each it is InfoNCE (1807.03748). Anchors without a positive do not count; where
    none has any the loss is 0.
    """
    sum_, count = _attraction(logits_QN, positive_QN=positive_QN, ignored_QN=ignored_QN)
    return sum_ / count.clamp(min=1)


def _attraction(
    logits_QN: Tensor, *, positive_QN: Tensor, ignored_QN: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum over anchors, and how many of them have a positive."""
    away_QN = positive_QN if ignored_QN is None else positive_QN | ignored_QN
    negative_Q1 = logits_QN.masked_fill(away_QN, -torch.inf).logsumexp(dim=1, keepdim=True)
    each_QN = functional.softplus(negative_Q1 - logits_QN).masked_fill(~positive_QN, 0.0)
    count_Q = positive_QN.sum(dim=1)
    return (each_QN.sum(dim=1) / count_Q.clamp(min=1)).sum(), (count_Q > 0).sum()


def both_ways(logits_QN: Tensor, *, positive_QN: Tensor) -> Tensor:
    """Rows find their columns, and columns their rows: the mean of `attract` either way."""
    there = attract(logits_QN, positive_QN=positive_QN)
    back = attract(logits_QN.T, positive_QN=positive_QN.T)
    return (there + back) / 2


def cross_modal(
    pictures_IM: Tensor,
    texts_TM: Tensor,
    *,
    group_I: Tensor,
    group_T: Tensor,
    scale: Tensor,
    rows: int | None = None,
) -> Tensor:
    """Texts find their pictures among pictures, pictures their texts among texts (2103.00020)."""
    _check(pictures_IM, texts_TM, group_I, group_T)
    if rows is not None:
        there = _in_chunks(pictures_IM, texts_TM, group_I, group_T, scale=scale, rows=rows)
        back = _in_chunks(texts_TM, pictures_IM, group_T, group_I, scale=scale, rows=rows)
        return (there + back) / 2
    logits_IT = logits(pictures_IM, texts_TM, scale=scale)
    return both_ways(logits_IT, positive_QN=group_I[:, None] == group_T[None, :])


def joint(all_NM: Tensor, *, group_N: Tensor, scale: Tensor, rows: int | None = None) -> Tensor:
    """Everything finds what belongs to it among all texts and pictures together.

    This closes the gap between the modalities: a picture must beat texts, and a text pictures.
    """
    _check(all_NM, all_NM, group_N, group_N)
    if rows is not None:
        return _in_chunks(all_NM, all_NM, group_N, group_N, scale=scale, rows=rows, itself=True)
    logits_NN = logits(all_NM, all_NM, scale=scale)
    itself_NN = torch.eye(len(all_NM), dtype=torch.bool, device=all_NM.device)
    positive_NN = (group_N[:, None] == group_N[None, :]) & ~itself_NN
    return attract(logits_NN, positive_QN=positive_NN, ignored_QN=itself_NN)


def _in_chunks(
    anchors_QM: Tensor,
    candidates_NM: Tensor,
    group_Q: Tensor,
    group_N: Tensor,
    *,
    scale: Tensor,
    rows: int,
    itself: bool = False,
) -> Tensor:
    """What `attract` says of all anchors, `rows` of them at a time."""
    at_N = torch.arange(len(candidates_NM), device=group_N.device)

    def part(start: int, anchors_RM: Tensor, candidates_NM: Tensor, scale: Tensor) -> Tensor:
        stop = start + len(anchors_RM)
        same_RN = group_Q[start:stop, None] == group_N[None, :]
        itself_RN = at_N[start:stop, None] == at_N[None, :] if itself else None
        positive_RN = same_RN if itself_RN is None else same_RN & ~itself_RN
        logits_RN = logits(anchors_RM, candidates_NM, scale=scale)
        sum_, count = _attraction(logits_RN, positive_QN=positive_RN, ignored_QN=itself_RN)
        return torch.stack([sum_, count.to(sum_.dtype)])

    sum_, count = _over_chunks(part, anchors_QM, candidates_NM, scale, rows=rows).unbind()
    return sum_ / count.detach().clamp(min=1)


def sigmoid(
    pictures_IM: Tensor,
    texts_TM: Tensor,
    *,
    group_I: Tensor,
    group_T: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: int | None = None,
) -> Tensor:
    """Every pair by itself is one of a group or is not (SigLIP, 2303.15343).

    The sum over all pairs, divided by the mean number of pictures and texts.
    """
    _check(pictures_IM, texts_TM, group_I, group_T)

    def part(start: int, pictures_RM: Tensor, texts_TM: Tensor, scale: Tensor) -> Tensor:
        stop = start + len(pictures_RM)
        sign_RT = torch.where(group_I[start:stop, None] == group_T[None, :], 1.0, -1.0)
        logits_RT = logits(pictures_RM, texts_TM, scale=scale) + bias
        return functional.softplus(-sign_RT * logits_RT).sum()

    if rows is None:
        total = part(0, pictures_IM, texts_TM, scale)
    else:
        total = _over_chunks(part, pictures_IM, texts_TM, scale, rows=rows)
    return 2 * total / (len(pictures_IM) + len(texts_TM))


def _over_chunks(
    part: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    anchors_QM: Tensor,
    candidates_NM: Tensor,
    scale: Tensor,
    *,
    rows: int,
) -> Tensor:
    """The sum of `part` over chunks of anchors, nothing of which is kept for the way back."""
    if rows < 1:
        raise InvalidInput(f"Got chunks of {rows} rows, expected at least 1.")
    sums = [
        checkpoint(
            part,
            at * rows,
            anchors_RM,
            candidates_NM,
            scale,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for at, anchors_RM in enumerate(torch.split(anchors_QM, rows))
    ]
    return torch.stack(sums).sum(dim=0)


def matryoshka(
    loss: Callable[..., Tensor],
    *embeddings_NM: Tensor,
    prefixes: Mapping[int, float] = PREFIXES,
) -> Tensor:
    """The weighted mean of a loss over prefixes of the embeddings, made unit (2205.13147).

    `prefixes` gives each length its weight; one that is longer than the embeddings is an error.
    """
    width = min(emb_NM.shape[1] for emb_NM in embeddings_NM)
    if not prefixes or min(prefixes) < 1 or max(prefixes) > width or min(prefixes.values()) <= 0:
        raise InvalidInput(
            f"Got prefixes {dict(prefixes)}, expected lengths of 1 to {width}, weights above 0."
        )
    total = sum(prefixes.values())
    each = [
        weight
        / total
        * loss(*(functional.normalize(emb_NM[:, :length], dim=-1) for emb_NM in embeddings_NM))
        for length, weight in prefixes.items()
    ]
    return torch.stack(each).sum()


def _check(left_NM: Tensor, right_NM: Tensor, group_N: Tensor, other_N: Tensor) -> None:
    for emb_NM, groups in ((left_NM, group_N), (right_NM, other_N)):
        if emb_NM.ndim != 2 or groups.shape != emb_NM.shape[:1]:
            raise InvalidInput(
                f"Got embeddings of shape {tuple(emb_NM.shape)} with groups of shape "
                f"{tuple(groups.shape)}, expected (N, M) with (N,)."
            )
    if left_NM.shape[1] != right_NM.shape[1]:
        raise InvalidInput(
            f"Got embeddings {left_NM.shape[1]} and {right_NM.shape[1]} wide, expected one width."
        )
