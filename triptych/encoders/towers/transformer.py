"""The text tower in torch: a small BERT (MiniLM) without its pooler.

B batch, T tokens, D model width, V vocabulary, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The shape of the tower; the defaults are MiniLM's."""

    vocabulary: int
    width: int = 384
    num_layers: int = 6
    num_heads: int = 12
    hidden: int = 1536
    max_tokens: int = 256
    dropout: float = 0.0  # costs a tenth of a step on a CPU; training drops words instead
    epsilon: float = 1e-12
    checkpoint: bool = False  # keep no states of a block, make them again on the way back


class Attention(nn.Module):
    """Self-attention in which every token sees every token that is not padding."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(config.width, config.width) for _ in range(4)
        )

    def forward(self, tokens_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        batch, length, width = tokens_BTD.shape

        def heads(linear: nn.Linear) -> Tensor:
            flat_BTD: Tensor = linear(tokens_BTD)
            return flat_BTD.view(batch, length, self.num_heads, -1).transpose(1, 2)

        # written out: for short texts on a CPU torch's fused attention costs a third of a step
        root = (width // self.num_heads) ** -0.5
        scores_BHTT = heads(self.query) * root @ heads(self.key).transpose(2, 3)
        # finite: a text that is padding throughout gives numbers, which nobody reads
        lowest = torch.finfo(scores_BHTT.dtype).min
        share_BHTT = scores_BHTT.masked_fill(~mask_B11T, lowest).softmax(dim=-1)
        mixed_BHTD = share_BHTT.to(tokens_BTD.dtype) @ heads(self.value)
        mixed: Tensor = self.out(mixed_BHTD.transpose(1, 2).reshape(batch, length, width))
        return mixed


class Block(nn.Module):
    """Attention, then two linear layers; normalised after each sum, as in BERT."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm_attention = nn.LayerNorm(config.width, eps=config.epsilon)
        self.widen = nn.Linear(config.width, config.hidden)
        self.narrow = nn.Linear(config.hidden, config.width)
        self.norm_out = nn.LayerNorm(config.width, eps=config.epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        mixed_BTD = self.dropout(self.attention(tokens_BTD, mask_B11T))
        tokens_BTD = self.norm_attention(tokens_BTD + mixed_BTD)
        wide = functional.gelu(self.widen(tokens_BTD))
        out: Tensor = self.norm_out(tokens_BTD + self.dropout(self.narrow(wide)))
        return out


class Transformer(nn.Module):
    """Token ids to token states."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Embedding(config.max_tokens, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """tokens_BTD; `mask_BT` is True where there is a token."""
        words_BTD = self.words(ids_BT) + self.places.weight[: ids_BT.shape[1]]
        tokens_BTD: Tensor = self.dropout(self.norm(words_BTD))
        again = self.config.checkpoint and torch.is_grad_enabled()
        for block in self.blocks:
            if again:
                tokens_BTD = checkpoint(
                    block, tokens_BTD, mask_BT[:, None, None, :], use_reentrant=False
                )
            else:
                tokens_BTD = block(tokens_BTD, mask_BT[:, None, None, :])
        return tokens_BTD


_PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "norm_out",
}


def from_bert(weights: Mapping[str, Tensor], *, words_VD: Tensor | None = None) -> Transformer:
    """A tower that starts from MiniLM's checkpoint, with its table of words, or one of its own."""
    words_VD = weights["embeddings.word_embeddings.weight"] if words_VD is None else words_VD
    config = TransformerConfig(vocabulary=len(words_VD))
    tower = Transformer(config)
    # the sentence is always of type 0, so that row moves into the places
    places_TD = weights["embeddings.position_embeddings.weight"][: config.max_tokens]
    state = {
        "words.weight": words_VD,
        "places.weight": places_TD + weights["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": weights["embeddings.LayerNorm.weight"],
        "norm.bias": weights["embeddings.LayerNorm.bias"],
    }
    for index in range(config.num_layers):
        for theirs, ours in _PARTS.items():
            for kind in ("weight", "bias"):
                source = f"encoder.layer.{index}.{theirs}.{kind}"
                state[f"blocks.{index}.{ours}.{kind}"] = weights[source]
    tower.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return tower


def mean_of_tokens(tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean state of what is not padding, whatever padding holds."""
    there_BTD = tokens_BTD.masked_fill(~mask_BT.unsqueeze(-1), 0.0)
    # a text without a token is 0, not NaN
    return there_BTD.sum(dim=1) / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
