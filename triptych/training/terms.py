"""What a batch contributes to each of the four terms of the loss.

B pictures, T texts, N embeddings, M embedding width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from triptych.encoders.scorers.maxsim import maxsim
from triptych.encoders.towers.states import TokenStates, rows_of
from triptych.model import JointModel, JointOutput
from triptych.moe.layer import MoEOutput
from triptych.training.losses import both_ways, cross_modal, joint, matryoshka
from triptych.training.objective import (
    Terms,
    classification,
    regularisation,
    sparsity,
)
from triptych.training.recipes import Recipe

_Z_SHARE = 1e-2  # the z-loss is about 28 at the start, the balance loss 1


class Batch(NamedTuple):
    """Tower states of one batch, and what belongs to what."""

    text: TokenStates  # of the drawn texts, then of those that stand beside a picture
    picture: TokenStates | None
    group_B: Tensor
    owner_T: Tensor  # the picture of each text that is not beside one
    label_B: Tensor


class BatchTerms(NamedTuple):
    """The terms, and what the experts were asked."""

    terms: Terms
    load_E: Tensor | None
    num_active: float


def terms_of(
    model: JointModel, batch: Batch, *, recipe: Recipe, prototypes_CM: Tensor | None
) -> BatchTerms:
    """Return the four terms of a batch; a set without pictures contrasts its texts alone."""
    num_texts = len(batch.owner_T)
    texts = model(rows_of(batch.text, slice(0, num_texts)), None)
    outputs: list[JointOutput] = [texts]
    group_T = batch.group_B[batch.owner_T]
    if batch.picture is None:
        contrast = matryoshka(
            partial(joint, group_N=group_T, scale=model.scale()),
            texts.emb_BM,
            prefixes=recipe.prefixes,
        )
        label_N = batch.label_B[batch.owner_T]
    else:
        pictures = model(None, batch.picture)
        outputs.append(pictures)
        contrast = _contrast(model, pictures.emb_BM, texts.emb_BM, batch, recipe)
        contrast = contrast + recipe.token_weight * _alignment(pictures, texts, batch, recipe)
        label_N = torch.cat([batch.label_B, batch.label_B[batch.owner_T]])
        if recipe.both_weight and len(batch.text.mask_BT) > num_texts:
            both = model(rows_of(batch.text, slice(num_texts, None)), batch.picture)
            outputs.append(both)
            contrast = contrast + recipe.both_weight * cross_modal(
                both.emb_BM,
                texts.emb_BM,
                group_I=batch.group_B,
                group_T=group_T,
                scale=model.scale(),
            )
    emb_NM = torch.cat([out.emb_BM for out in reversed(outputs[:2])])
    return _found(outputs, contrast, emb_NM, label_N, prototypes_CM=prototypes_CM, model=model)


def pair_terms(model: JointModel, batch: Batch) -> BatchTerms:
    """Return the scorer's term: among the batch a text finds its picture, and back.

    The states that it reads stay as they are.
    """
    assert batch.picture is not None
    with torch.autocast(batch.group_B.device.type, enabled=False):
        logits_TB = model.score(_in_float32(batch.text), _in_float32(batch.picture))
    positive_TB = batch.group_B[batch.owner_T][:, None] == batch.group_B[None, :]
    return BatchTerms(Terms(contrastive=both_ways(logits_TB, positive_QN=positive_TB)), None, 0.0)


def _in_float32(states: TokenStates) -> TokenStates:
    return TokenStates(states.tokens_BTD.float(), states.mask_BT)


def _contrast(
    model: JointModel, pictures_BM: Tensor, texts_TM: Tensor, batch: Batch, recipe: Recipe
) -> Tensor:
    """Both ways between the modalities, and among all together, on every prefix."""
    group_B, group_T = batch.group_B, batch.group_B[batch.owner_T]

    def loss(pictures_BM: Tensor, texts_TM: Tensor) -> Tensor:
        scale = model.scale()
        both = cross_modal(pictures_BM, texts_TM, group_I=group_B, group_T=group_T, scale=scale)
        if not recipe.joint_weight:
            return both
        all_NM, group_N = torch.cat([pictures_BM, texts_TM]), torch.cat([group_B, group_T])
        return both + recipe.joint_weight * joint(all_NM, group_N=group_N, scale=scale)

    return matryoshka(loss, pictures_BM, texts_TM, prefixes=recipe.prefixes)


def _alignment(
    pictures: JointOutput, texts: JointOutput, batch: Batch, recipe: Recipe
) -> Tensor | float:
    """Words find their patches: late interaction of all pairs (FILIP), InfoNCE over pictures."""
    if not recipe.token_weight:
        return 0.0
    assert texts.text is not None and pictures.picture is not None
    scores_TB = maxsim(texts.text, pictures.picture)
    same_TB = batch.group_B[batch.owner_T][:, None] == batch.group_B[None, :]
    target_TB = same_TB / same_TB.sum(dim=1, keepdim=True)
    logits_TB = recipe.token_scale * scores_TB.float()
    return functional.cross_entropy(logits_TB, target_TB)


def _found(
    outputs: Sequence[JointOutput],
    contrast: Tensor,
    emb_NM: Tensor,
    label_N: Tensor,
    *,
    prototypes_CM: Tensor | None,
    model: JointModel,
) -> BatchTerms:
    mixtures = [out.moe for out in outputs if out.moe is not None]
    named = (
        None
        if prototypes_CM is None
        else classification(
            emb_NM, label_N, prototypes_CM=prototypes_CM, scale=model.scale().detach()
        )
    )
    if not mixtures:
        terms = Terms(contrastive=contrast, classification=named)
        return BatchTerms(terms, None, 0.0)
    terms = Terms(
        contrastive=contrast,
        classification=named,
        sparsity=sparsity(_mean(mixtures, "budget_loss")),
        regularisation=regularisation(
            balance_loss=_mean(mixtures, "balance_loss"),
            router_z_loss=_Z_SHARE * _mean(mixtures, "router_z_loss"),
        ),
    )
    load_E = torch.stack([out.load_E for out in mixtures]).sum(dim=0)
    # the mean over tokens, of parts with different numbers of them
    num_tokens = sum(float(out.load_E.sum()) / max(float(out.num_active), 1e-9) for out in mixtures)
    return BatchTerms(terms, load_E, float(load_E.sum()) / max(num_tokens, 1.0))


def _mean(mixtures: Sequence[MoEOutput], name: str) -> Tensor:
    return torch.stack([getattr(out, name) for out in mixtures]).mean()
