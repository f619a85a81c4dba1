"""What each part of a query contributed to the score of each hit.

A score is the cosine with the normalised sum of the parts, so it is itself a sum: of each part's
weight times its own cosine, over the length of the sum.

P parts of a query, K hits, M embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.retrieval.collection import Collection
from triptych.retrieval.models import embed_asked
from triptych.types import Part, Query


def shares(collection: Collection, query: Query, ids: Sequence[str]) -> NDArray[np.float64]:
    """Return shares_KP; each row adds up to the hit's score.

    Raises NotFound where a hit was deleted since.
    """
    weights_P = np.array([part.weight for part in query.parts], dtype=np.float64)
    parts_PM = np.stack([_unit(collection, part) for part in query.parts]).astype(np.float64)
    length = np.linalg.norm(weights_P @ parts_PM)
    hits_KM = collection.vectors(ids).astype(np.float64)
    shares_KP: NDArray[np.float64] = (hits_KM @ parts_PM.T) * (weights_P / length)
    return shares_KP


def _unit(collection: Collection, part: Part) -> NDArray[np.float32]:
    alone = Part(text=part.text, image=part.image, id=part.id, vector=part.vector)
    return embed_asked(collection.embedder, Query((alone,)), collection.vectors)
