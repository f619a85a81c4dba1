"""What is said where a collection and a model do not belong together."""

from __future__ import annotations

from pathlib import Path

from triptych.encoders.base import EmbeddingModel
from triptych.errors import ModelMismatch
from triptych.index.meta import Meta


def another_model(folder: Path | None, meta: Meta, ours: EmbeddingModel) -> ModelMismatch:
    """Return the error for a collection with the vectors of another model than `ours`."""
    return ModelMismatch(
        f"{folder or 'The collection'} holds vectors of the model {meta.model} "
        f"({meta.fingerprint[:12]}, {meta.dim} numbers), got {ours.name} "
        f"({ours.fingerprint[:12]}, {ours.dim} numbers).",
        hint="Open it with its own model, or index it anew: triptych index --rebuild",
    )
