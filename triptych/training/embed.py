"""Vectors from a model in torch, of texts and of cached maps.

N pictures, T texts, H W C as in a map, M embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from triptych.model import JointModel
from triptych.training.batches import read_texts, text_ids
from triptych.training.features import CUT
from triptych.training.precision import autocast


def embed_maps(model: JointModel, maps_NHWC: Tensor) -> Tensor:
    """Return emb_NM, float32 unit rows, of cached maps."""
    device = model.log_scale.device
    rows = []
    with torch.inference_mode(), autocast(device):
        for chunk in torch.split(maps_NHWC, 64):
            picture = model.look(chunk.permute(0, 3, 1, 2).to(device).float(), after=CUT)
            rows.append(model(None, picture).emb_BM.float().cpu())
    return torch.cat(rows)


def embed_texts(model: JointModel, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Return emb_TM, float32 unit rows, in full precision."""
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    out = torch.empty(len(texts), model.config.dim)
    with torch.inference_mode():
        for start in range(0, len(order), 256):
            chosen = order[start : start + 256]
            states = read_texts(model, text_ids(tokenizer, [texts[at] for at in chosen]))
            out[chosen] = model(states, None).emb_BM.cpu()
    return out
