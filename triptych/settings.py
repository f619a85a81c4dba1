"""The only reader of the environment; names models and builds the graph of objects.

TRIPTYCH_DATA       the data folder (default: the platform's data home)
TRIPTYCH_MODEL      the model of new collections (default: the one in the package)
TRIPTYCH_REDIS_URL  the shared cache tier
TRIPTYCH_THREADS    threads a model may use (default: the machine's cores, for batches)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs

from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput
from triptych.registry import Registry
from triptych.retrieval.collection import Collection
from triptych.retrieval.library import Library

MODELS = Registry(
    "model",
    {
        "default": "triptych.encoders.onnx:OnnxModel",
        "hashing": "triptych.encoders.hashing:HashingEncoder",
        "open_clip": "triptych.encoders.open_clip:OpenClipModel",
        "vectors": "triptych.encoders.vectors:CallerVectors",
    },
    extras={"open_clip": "torch"},
)
"""Families of models; a name is `<family>[:<argument>]`, and each class has `from_name(argument)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    data: Path
    model: str = "default"
    redis_url: str | None = None
    threads: int = 0  # 0: as many as there are cores

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Return the settings that the environment names; empty values count as unset."""
        given = {k: v for k, v in (os.environ if environ is None else environ).items() if v}
        return cls(
            data=Path(given.get("TRIPTYCH_DATA") or platformdirs.user_data_dir("triptych")),
            model=given.get("TRIPTYCH_MODEL", "default"),
            redis_url=given.get("TRIPTYCH_REDIS_URL"),
            threads=_count("TRIPTYCH_THREADS", given.get("TRIPTYCH_THREADS", "0")),
        )

    @property
    def num_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))


def _count(key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise InvalidInput(f"Got {key}={value!r}, expected a whole number.", hint="0 means all cores.")
    return int(value)
