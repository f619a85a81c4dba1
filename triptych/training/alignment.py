"""Three alignments of text and picture, each a loss and a measure: meaning, place, structure.

B pairs, Q texts, N pictures, T tokens, P patches, M width of a vector or number of mentions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from triptych.encoders.scorers.maxsim import maxsim
from triptych.encoders.structure.graphs import Grid, places
from triptych.encoders.towers.states import TokenStates
from triptych.training.losses import both_ways
from triptych.training.scenes import Box, Scene

Offsets = Sequence[tuple[int, int]]  # characters start:stop of every piece of a text


def contrast(scores_QN: Tensor, *, positive_QN: Tensor, scale: Tensor) -> Tensor:
    """Texts find their pictures, and pictures their texts, by any score (as in `losses`)."""
    return both_ways(scale * scores_QN, positive_QN=positive_QN)


def recall(scores_QN: Tensor, *, positive_QN: Tensor) -> float:
    """Return the share of texts whose best picture is right: the measure of `contrast`."""
    best_Q1 = scores_QN.argmax(dim=1, keepdim=True)
    return float(positive_QN.gather(1, best_Q1).float().mean())


def semantic_loss(
    texts_QM: Tensor, pictures_NM: Tensor, *, positive_QN: Tensor, scale: Tensor
) -> Tensor:
    """The contrast of pooled unit vectors; measured by `recall` of their products."""
    return contrast(texts_QM @ pictures_NM.T, positive_QN=positive_QN, scale=scale)


def token_loss(
    text: TokenStates, picture: TokenStates, *, positive_QN: Tensor, scale: Tensor
) -> Tensor:
    """The contrast of MaxSim both ways: places without boxes (FILIP, Yao et al. 2021).

    Each token's best partner is all that counts, so words come to lie near the patches they name.
    """
    of_words = contrast(maxsim(text, picture), positive_QN=positive_QN, scale=scale)
    of_patches = contrast(maxsim(picture, text), positive_QN=positive_QN.T, scale=scale)
    return (of_words + of_patches) / 2


def mask_loss(spatial_BTP: Tensor, *, inside_BTP: Tensor, spoken_BT: Tensor) -> Tensor:
    """Cross-entropy of the spatial mask where boxes are known; 0 where none is.

    `inside_BTP` is the part of each patch in the box, `spoken_BT` which tokens have one. Inside
    and outside weigh the same for every token, or a mask that is shut everywhere would do well.
    """
    if not spoken_BT.any():
        return spatial_BTP.sum() * 0.0
    mask_MP = spatial_BTP[spoken_BT].float().clamp(1e-6, 1 - 1e-6)
    inside_MP = inside_BTP[spoken_BT].to(mask_MP.dtype)
    missed_M = _mean(-mask_MP.log(), weight_MP=inside_MP)
    leaked_M = _mean(-(1 - mask_MP).log(), weight_MP=1 - inside_MP)
    return (missed_M + leaked_M).mean() / 2


def pointing_hits(heat_MP: Tensor, boxes: Sequence[Box], grid: Grid) -> Tensor:
    """Return hits_M: whether the middle of the hottest patch lies in the box (Zhang et al. 2016).

    A mention that speaks of several tokens has the mean of their heat; where patches are equally
    hot, each counts its part.
    """
    hottest_MP = heat_MP == heat_MP.amax(dim=1, keepdim=True)
    middle_MP = torch.stack([_holds(box, grid) for box in boxes]).to(heat_MP.device)
    return (hottest_MP & middle_MP).sum(dim=1) / hottest_MP.sum(dim=1)


def structure_loss(right_B: Tensor, swapped_B: Tensor, *, scale: Tensor) -> Tensor:
    """A picture's sentence must score above the same words with the relation turned round."""
    return torch.nn.functional.softplus(scale * (swapped_B - right_B)).mean()


def relation_accuracy(right_B: Tensor, swapped_B: Tensor) -> float:
    """Return the share of pairs in which the right sentence wins; a tie wins half."""
    return float(((right_B > swapped_B).float() + 0.5 * (right_B == swapped_B).float()).mean())


def pixel_targets(
    scenes: Sequence[Scene], offsets: Sequence[Offsets], *, length: int, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Return inside_BTP, the part of each patch in the box of a piece, and spoken_BT, who has one.

    `length` is T, padding included.
    """
    inside_BTP = torch.zeros(len(scenes), length, grid.rows * grid.columns)
    spoken_BT = torch.zeros(len(scenes), length, dtype=torch.bool)
    for row, (scene, pieces) in enumerate(zip(scenes, offsets, strict=True)):
        for mention in scene.mentions:
            at = pieces_within(pieces, mention.start, mention.stop)
            inside_BTP[row, at] = covered(mention.box, grid)
            spoken_BT[row, at] = True
    return inside_BTP, spoken_BT


def pieces_within(pieces: Offsets, start: int, stop: int) -> list[int]:
    """Return the pieces that lie in the characters start:stop."""
    return [at for at, (first, end) in enumerate(pieces) if start <= first < end <= stop]


def covered(box: Box, grid: Grid) -> Tensor:
    """Return share_P: the part of every patch that the box covers."""
    right_C = _overlap(box.left, box.right, grid.columns)
    down_R = _overlap(box.top, box.bottom, grid.rows)
    return (down_R[:, None] * right_C).flatten()


def _overlap(low: float, high: float, steps: int) -> Tensor:
    edges = torch.arange(steps) / steps
    return (edges + 1 / steps).clamp(max=high).sub(edges.clamp(min=low)).clamp(min=0) * steps


def _holds(box: Box, grid: Grid) -> Tensor:
    right_P, down_P = places(grid).unbind(dim=1)
    return (right_P > box.left) & (right_P < box.right) & (down_P > box.top) & (down_P < box.bottom)


def _mean(value_MP: Tensor, *, weight_MP: Tensor) -> Tensor:
    return (value_MP * weight_MP).sum(dim=1) / weight_MP.sum(dim=1).clamp(min=1e-6)
