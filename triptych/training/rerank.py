"""What the scorer of pairs adds to the cosine, on captions whose first candidates it orders.

T texts, N pictures, K candidates of a text, M embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from triptych.encoders.scorers.token_matcher import TokenMatcher
from triptych.encoders.towers.states import TokenStates, rows_of, unpadded
from triptych.model import JointModel
from triptych.pairs import Row
from triptych.training.batches import read_texts, text_ids
from triptych.training.features import CUT
from triptych.training.losses import logits
from triptych.training.precision import autocast

WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)  # cosines per unit of the score


def reranked(
    model: JointModel,
    tokenizer: Tokenizer,
    *,
    rows: Sequence[Row],
    maps_NHWC: Tensor,
    candidates: int = 50,
) -> dict[float, float]:
    """Return recall@1 in percent for each weight of the score beside the cosine (0: none)."""
    assert model.scorer is not None, "built without a scorer"
    pictures, emb_NM = _pictures(model, model.scorer, maps_NHWC)
    device = emb_NM.device
    hits, asked = dict.fromkeys(WEIGHTS, 0), 0
    texts = [(at, text) for at, row in enumerate(rows) for text in row.texts[:1]]
    for start in range(0, len(texts), 32):
        some = texts[start : start + 32]
        with torch.inference_mode(), autocast(device):
            read = read_texts(model, text_ids(tokenizer, [text for _, text in some]))
            cosines_TN = logits(model(read, None).emb_BM, emb_NM, scale=1.0)
            top_TK = cosines_TN.topk(min(candidates, len(emb_NM)), dim=1).indices
            scores_TK = _scores(model.scorer, model.scorer.text(read), pictures, top_TK)
        cosines_TK = cosines_TN.gather(1, top_TK)
        own_T = torch.tensor([at for at, _ in some], device=device)
        for weight in WEIGHTS:
            best_T = (cosines_TK + weight * scores_TK).argmax(dim=1, keepdim=True)
            hits[weight] += int((top_TK.gather(1, best_T)[:, 0] == own_T).sum())
        asked += len(some)
    return {weight: round(100 * count / asked, 2) for weight, count in hits.items()}


def _pictures(
    model: JointModel, matcher: TokenMatcher, maps_NHWC: Tensor
) -> tuple[TokenStates, Tensor]:
    device = model.log_scale.device
    tokens, embs = [], []
    with torch.inference_mode(), autocast(device):
        for chunk in torch.split(maps_NHWC, 64):
            looked = model.look(chunk.permute(0, 3, 1, 2).to(device).float(), after=CUT)
            tokens.append(matcher.picture(looked).tokens_BTD)
            embs.append(model(None, looked).emb_BM)
    return unpadded(torch.cat(tokens)), torch.cat(embs)


def _scores(
    matcher: TokenMatcher, text: TokenStates, pictures: TokenStates, top_TK: Tensor
) -> Tensor:
    rows = [
        matcher(rows_of(text, slice(at, at + 1)), rows_of(pictures, top_K))[0].float()
        for at, top_K in enumerate(top_TK)
    ]
    return torch.stack(rows)
