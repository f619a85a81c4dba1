"""Reranking by token states that were stored with the items.

Late interaction: each token of the query looks for its best answer among an item's tokens.

MaxSim of Khattab and Zaharia (2020, ColBERT). A model with a scorer of pairs does better: there
some words weigh more than others, and the cosine of the whole counts too.

Q tokens of a query, T of an item, W their width, K items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from triptych.encoders.base import EmbeddingModel, LateInteraction, PairScoring, unit_rows
from triptych.errors import InvalidInput, NotAvailable
from triptych.index.sqlite.records import Tokens
from triptych.index.sqlite.store import Store
from triptych.index.sqlite.tokens import in_bytes
from triptych.retrieval.models import innermost
from triptych.types import Item, Matrix, Modality, Query, Vector

_DECIMALS = 6  # the last bits of a sum depend on what else is summed, and would break ties


def token_width(model: EmbeddingModel) -> int:
    """Return the width of the model's token states; raises NotAvailable where it gives none."""
    return _late(model).token_width


def check_rerank(number: int, store: Store) -> int:
    """Return `number`; raises InvalidInput where there is nothing to rerank with."""
    # not the meta that is known: another process may have migrated
    if number and not store.read_meta().token_width:
        raise InvalidInput(
            "This collection keeps no token states to rerank with.",
            hint="Index into a new one that does: triptych collections create NAME --tokens, or "
            "tokens=True.",
        )
    return number


def stored_tokens(
    model: EmbeddingModel, items: Sequence[Item], width: int
) -> Sequence[Tokens | None]:
    """Return the states of each item in eight bits; None of each where the width is 0."""
    if not width:
        return [None] * len(items)
    return [in_bytes(states_TW) for states_TW in _states(model, items, width)]


def info(store: Store) -> dict[str, int]:
    """Return the width, number and bytes of what is kept; nothing where that is nothing."""
    width = store.read_meta().token_width
    items, num_bytes = store.token_size()
    return {"token_width": width, "with_tokens": items, "token_bytes": num_bytes} if width else {}


def query_tokens(query: Query, model: EmbeddingModel) -> Matrix:
    """Return tokens_QW of all parts; their lengths are the weights and add up to 1.

    Raises InvalidInput for a part that is no text or picture, or weighs less than nothing.
    """
    for part in query.parts:
        if part.weight < 0 or (part.text is None and part.image is None):
            raise InvalidInput(
                "Reranking compares the tokens of words and pictures; the query has another part.",
                hint="Leave rerank out where a query has minus, like or vector.",
            )
    items = [Item(id=f"query:{at}", text=p.text, image=p.image) for at, p in enumerate(query.parts)]
    states = _states(model, items, token_width(model))
    # a part counts by its weight, however many tokens it has
    shares = np.array([part.weight for part in query.parts])
    shares /= shares.sum()
    scaled = [one_TW * (share / len(one_TW)) for one_TW, share in zip(states, shares, strict=True)]
    tokens_QW: Matrix = np.concatenate(scaled).astype(np.float32)
    return tokens_QW


class Candidates(NamedTuple):
    """What is ordered anew: the states of each, and what it is."""

    states: Sequence[Matrix]
    modalities: Sequence[Modality]


class Reranker(Protocol):
    """Orders candidates anew, of which a part at a time is in memory."""

    def look(self, found: Candidates) -> Vector:
        """Return what is seen in each of some candidates."""

    def decide(self, cosines_K: Vector, seen_K: Vector) -> Vector:
        """Return scores_K of all that were looked at, higher is better."""


def reranker_of(query: Query, model: EmbeddingModel) -> Reranker:
    """Return what orders the first: the model's scorer of pairs, or else MaxSim.

    The scorer judges one text beside pictures, or one picture beside texts; for a query of several
    parts, or a model without a scorer, it is late interaction. Raises as `query_tokens` does.
    """
    tokens_QW = query_tokens(query, model)
    late = _late(model)
    # not isinstance alone: a model of an older form has the method, and no scorer
    if len(query.parts) == 1 and isinstance(late, PairScoring) and late.has_scorer:
        states_QW = unit_rows(tokens_QW)  # as they are stored
        return Pairs(states_QW, late, is_text=query.parts[0].text is not None)
    return MaxSim(tokens_QW)


class MaxSim:
    """Late interaction alone."""

    def __init__(self, tokens_QW: Matrix) -> None:
        self._tokens_QW = tokens_QW

    def look(self, found: Candidates) -> Vector:
        return max_similarities(self._tokens_QW, found.states)

    def decide(self, cosines_K: Vector, seen_K: Vector) -> Vector:
        return seen_K


class Pairs:
    """A candidate of the other kind moves by its score; one of the same kind keeps its cosine."""

    def __init__(self, tokens_QW: Matrix, scoring: PairScoring, *, is_text: bool) -> None:
        self._tokens_QW, self._scoring, self._is_text = tokens_QW, scoring, is_text

    def look(self, found: Candidates) -> Vector:
        """Return the scores of pairs, NaN for what is of the query's own kind."""
        other = ("image", "both") if self._is_text else ("text", "both")
        wanted = [at for at, modality in enumerate(found.modalities) if modality in other]
        seen_K = np.full(len(found.states), np.nan, dtype=np.float32)
        if wanted:
            seen_K[wanted] = self._scores(
                [(found.states[at], found.modalities[at]) for at in wanted]
            )
        return seen_K

    def _scores(self, sides: Sequence[tuple[Matrix, Modality]]) -> Vector:
        num = self._scoring.num_patches
        if self._is_text:
            pictures = [states_TW[-num:] for states_TW, _ in sides]
            return self._scoring.score_pairs(self._tokens_QW, pictures)
        texts = [states[:-num] if modality == "both" else states for states, modality in sides]
        scores = [self._scoring.score_pairs(text, [self._tokens_QW]) for text in texts]
        return np.concatenate(scores)

    def decide(self, cosines_K: Vector, seen_K: Vector) -> Vector:
        """Those who were judged move among each other, not all of them past the rest."""
        judged_K = ~np.isnan(seen_K)
        scores_K = cosines_K.copy()
        if judged_K.any():
            centre = seen_K[judged_K].mean(dtype=np.float64)
            scores_K[judged_K] += self._scoring.pair_weight * (seen_K[judged_K] - centre)
        return scores_K.round(_DECIMALS)


def max_similarities(tokens_QW: Matrix, states: Sequence[Matrix]) -> Vector:
    """Return scores_K: for each item the sum over Q of the greatest product with one of its T."""
    if not states:
        return np.empty(0, dtype=np.float32)
    starts_K = np.cumsum([0, *(len(states_TW) for states_TW in states[:-1])])
    # not BLAS: its threads wait for each other, tens of milliseconds where other work is running
    products_QT = np.einsum("qw,tw->qt", tokens_QW, np.concatenate(states))
    scores_K: Vector = np.maximum.reduceat(products_QT, starts_K, axis=1).sum(axis=0)
    return scores_K.round(_DECIMALS)


def _late(model: EmbeddingModel) -> LateInteraction:
    model = innermost(model)  # states are not remembered: they are a hundred times a vector
    # not isinstance: it would read the width, which may raise
    if not hasattr(type(model), "token_states"):
        raise NotAvailable(
            f"The model {model.name} gives no token states.",
            hint="Leave tokens out, or take a model that does, such as open_clip:ViT-B-32:openai.",
        )
    late: LateInteraction = model  # type: ignore[assignment]
    return late


def _states(model: EmbeddingModel, items: Sequence[Item], width: int) -> list[Matrix]:
    states = _late(model).token_states(items)
    if len(states) != len(items) or any(
        one_TW.ndim != 2 or not len(one_TW) or one_TW.shape[1] != width for one_TW in states
    ):
        shapes = [one_TW.shape for one_TW in states[:3]]
        raise InvalidInput(
            f"{model.name} gave token states of shapes {shapes}..., expected {len(items)} of "
            f"(1 or more, {width})."
        )
    return states
