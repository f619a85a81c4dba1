"""Contrastive losses: all that belongs to one group attracts, the rest of the batch repels.

Q anchors, N candidates, I pictures, T texts, M embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attract(logits_QN: Tensor, *, positive_QN: Tensor, ignored_QN: Tensor | None = None) -> Tensor:
    """The mean over positives of -log p, each against the negatives alone.

    Positives do not compete with each other: a picture's five captions may all be near it.
    Anchors without a positive do not count.
    """
    away_QN = positive_QN if ignored_QN is None else positive_QN | ignored_QN
    negative_Q1 = logits_QN.masked_fill(away_QN, -torch.inf).logsumexp(dim=1, keepdim=True)
    each_QN = functional.softplus(negative_Q1 - logits_QN).masked_fill(~positive_QN, 0.0)
    count_Q = positive_QN.sum(dim=1)
    has_Q = count_Q > 0
    return (each_QN.sum(dim=1)[has_Q] / count_Q[has_Q]).mean()


def cross_modal(
    pictures_IM: Tensor, texts_TM: Tensor, *, group_I: Tensor, group_T: Tensor, scale: Tensor
) -> Tensor:
    """Texts find their pictures among pictures, pictures their texts among texts."""
    logits_IT = scale * pictures_IM @ texts_TM.T
    positive_IT = group_I[:, None] == group_T[None, :]
    there = attract(logits_IT, positive_QN=positive_IT)
    back = attract(logits_IT.T, positive_QN=positive_IT.T)
    return (there + back) / 2


def joint(all_NM: Tensor, *, group_N: Tensor, scale: Tensor) -> Tensor:
    """Everything finds what belongs to it among all texts and pictures together.

    This closes the gap between the modalities: a picture must beat texts, and a text pictures.
    """
    logits_NN = scale * all_NM @ all_NM.T
    itself_NN = torch.eye(len(all_NM), dtype=torch.bool, device=all_NM.device)
    positive_NN = (group_N[:, None] == group_N[None, :]) & ~itself_NN
    return attract(logits_NN, positive_QN=positive_NN, ignored_QN=itself_NN)
