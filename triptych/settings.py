"""The only reader of the environment; names models and builds the graph of objects.

TRIPTYCH_DATA       the data folder (default: the platform's data home)
TRIPTYCH_MODEL      the model of new collections (default: the one in the package)
TRIPTYCH_REDIS_URL  the shared cache tier: redis://, rediss:// or unix:// (default: none)
TRIPTYCH_CACHE_MB   memory for cached answers and embeddings in a process that caches (default: 64)
TRIPTYCH_CACHE_TTL  seconds that an answer is kept (default: 3600)
TRIPTYCH_CACHE_EMBEDDINGS_TTL  seconds that an embedding is kept (default: 604800)
TRIPTYCH_CACHE_SECRET  seals what lies in Redis against whoever else can write to it
TRIPTYCH_QUERY_LOG  1: note which questions are asked most, to have their answers ready (default: 0)
TRIPTYCH_THREADS    threads a model may use (default: the machine's cores, for batches)
TRIPTYCH_RECALL     share of the true ten nearest that an index must find (default: 0.97)
TRIPTYCH_MEMORY     memory that an index may take, such as 2GB (default: no bound)

What else begins with TRIPTYCH_ are options of the server: see triptych serve --help.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import platformdirs

from triptych.cache.base import Cache
from triptych.cache.config import CacheConfig
from triptych.embedder import Embedder
from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput, ModelMismatch, NotFound
from triptych.index.plan import Budget
from triptych.index.sqlite.meta import Meta, Space
from triptych.registry import Registry
from triptych.retrieval.answering.answer_cache import AnswerCache, AnswerCacheConfig
from triptych.retrieval.answering.query_log import NAME as QUERIES
from triptych.retrieval.answering.query_log import QueryLog
from triptych.retrieval.answering.upkeep import DEFAULT as UPKEEP
from triptych.retrieval.answering.upkeep import Upkeep, UpkeepConfig
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import check_not_gutted
from triptych.retrieval.library import Library, keep_model, model_folder
from triptych.retrieval.models import holds_own_vectors
from triptych.types import Precision

_OTLP = "OTEL_EXPORTER_OTLP_"
"""Where OpenTelemetry's own variables say that traces go; its library reads them by itself."""

MODELS = Registry(
    "model",
    {
        "default": "triptych.encoders.onnx:OnnxModel",
        "fine": "triptych.encoders.fine:FineModel",
        "hashing": "triptych.encoders.hashing:HashingEncoder",
        "open_clip": "triptych.encoders.open_clip.encoder:OpenClipModel",
        "vectors": "triptych.encoders.vectors:CallerVectors",
    },
    extras={"open_clip": "torch"},
)
"""Families of models; a name is `<family>[:<argument>]`, a class has `from_name(argument)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    data: Path
    model: str = "default"
    cache: CacheConfig = field(default_factory=CacheConfig)
    threads: int = 0  # 0: as many as there are cores
    budget: Budget = field(default_factory=Budget)
    variables: Mapping[str, str] = field(default_factory=dict)  # those of the server

    @property
    def is_traced(self) -> bool:
        """Whether OpenTelemetry's own variables name a collector."""
        return any(self.variables.get(f"{_OTLP}{kind}") for kind in ("ENDPOINT", "TRACES_ENDPOINT"))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Return the settings that the environment names; empty values count as unset."""
        given = {k: v for k, v in (os.environ if environ is None else environ).items() if v}
        return cls(
            data=Path(given.get("TRIPTYCH_DATA") or platformdirs.user_data_dir("triptych")),
            model=given.get("TRIPTYCH_MODEL", "default"),
            cache=CacheConfig.from_env(given),
            threads=_count("TRIPTYCH_THREADS", given.get("TRIPTYCH_THREADS", "0")),
            budget=Budget.parse(given.get("TRIPTYCH_RECALL"), given.get("TRIPTYCH_MEMORY")),
            variables={k: v for k, v in given.items() if k.startswith(("TRIPTYCH_", _OTLP))},
        )

    @property
    def num_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))

    def open_model(self, name: str | None = None, *, threads: int = 1) -> EmbeddingModel:
        """Return the model that `name`, or TRIPTYCH_MODEL, names; NotFound lists the known ones."""
        family, _, argument = (name or self.model).partition(":")
        model: EmbeddingModel = MODELS.resolve(family).from_name(argument, threads=threads)
        return model

    def library(self, tenant: str = "default") -> Library:
        """Return the collections below the data folder."""
        return Library(self.data, tenant=tenant)

    def open_collection(
        self,
        path: str | Path,
        *,
        model: str | None = None,
        threads: int = 1,
        must_exist: bool = False,
        index: str = "auto",
        budget: Budget | None = None,
        precision: Precision = "fp32",
        tokens: bool = False,
        cache: Cache | None = None,
    ) -> Collection:
        """Return the collection in the folder `path`; one that exists keeps the model it has.

        `index`, `budget`, `precision` and `tokens` as in `Collection.open`. With `cache`, what was
        embedded once is remembered there; for its answers see `answers`. Raises NotFound where it
        `must_exist` and does not, ModelMismatch for another `model`.
        """
        cached = partial(self.cached, cache=cache)
        while True:
            known = None if str(path) == ":memory:" else Collection.peek(path)
            if known is None and must_exist:
                check_not_gutted(Path(path))
                raise self.missing(Path(path))
            if known is None or model is not None:
                embedder = self.open_model(model, threads=threads)
            else:
                embedder = self.model_of(known, threads=threads)
            if known is None and str(path) != ":memory:":
                self.keep(embedder)  # first: no collection is made whose model is not here
            try:
                return Collection.open(
                    path,
                    embedder=cached(embedder),
                    index=index,
                    budget=budget or self.budget,
                    precision=precision,
                    tokens=tokens,
                    model_of=lambda known: cached(self.model_of(known, threads=threads)),
                    threads=threads,
                )
            except ModelMismatch:  # or another process migrated it while the model was opened
                if model is not None or Collection.peek(path) == known:
                    raise

    def missing(self, path: Path) -> NotFound:
        """Return the error for a collection that is not there, with those that are."""
        library = self.library()
        example = "triptych index ~/Pictures"
        if path.parent != library.folder:
            folder = path if "/" in str(path) else f"./{path}"  # without a / it is a name
            return NotFound(
                f"There is no collection in {folder}.", hint=f"Make one: {example} -c {folder}"
            )
        known = ", ".join(library.list()) or "none yet"
        return NotFound(
            f"There is no collection {path.name!r} in {library.folder}, known: {known}.",
            hint=f"Make one: {example}" + f" -c {path.name}" * (path.name != "default"),
        )

    def answers(
        self,
        collection: Collection,
        *,
        cache: Cache,
        tenant: str = "default",
        name: str = "default",
    ) -> AnswerCache:
        """Return the answer cache of an open collection; it does not close `cache`."""
        config = AnswerCacheConfig(ttl=self.cache.answers_ttl)
        return AnswerCache(collection, cache=cache, tenant=tenant, name=name, config=config)

    def upkeep(self, answers: AnswerCache, *, config: UpkeepConfig = UPKEEP) -> Upkeep:
        """Return what tidies up behind `answers`, with a log of queries if TRIPTYCH_QUERY_LOG."""
        folder = answers.collection.folder
        log = QueryLog(folder / QUERIES) if self.cache.query_log and folder is not None else None
        if log is not None:
            weakref.finalize(answers.collection, log.save)
        return Upkeep(answers, log=log, config=config)

    def create_collection(
        self, name: str, *, model: str | None = None, tokens: bool = False
    ) -> Collection:
        """Return the new, empty collection called `name`; raises InvalidInput where it exists."""
        folder = self.library().create(name)
        return self.open_collection(folder, model=model, threads=self.num_threads, tokens=tokens)

    def model_of(self, known: Meta | Space, *, threads: int) -> EmbeddingModel:
        """Return the model of stored vectors: the copy kept for them, or the one they name."""
        kept = model_folder(self.data, known.fingerprint)
        if kept.is_dir():
            return self.open_model(f"default:{kept}", threads=threads)
        return self.open_model(_option(known.model), threads=threads)

    def option_of(self, model: str, fingerprint: str) -> str | None:
        """Return what --model calls a stored model; None for one that no name leads to any more.

        Where it is one of the package's own, the description of today's is read.
        """
        option = _option(model)
        if option == model or self.open_model(option).fingerprint == fingerprint:
            return option
        return None

    def cached(
        self, model: EmbeddingModel, *, cache: Cache | None, tenant: str = "default"
    ) -> EmbeddingModel:
        """Return the model with a memory for what the tenant embedded, where there is a cache."""
        if cache is None or holds_own_vectors(model):
            return model
        return Embedder(model, cache=cache, tenant=tenant, ttl=self.cache.embeddings_ttl)

    def keep(self, model: EmbeddingModel) -> None:
        """Copy a model that is files beside the collections, so an upgrade never strands them."""
        save = getattr(model, "save", None)
        if save is not None:
            keep_model(save, self.data, model.fingerprint)


def _option(model: str) -> str:
    """Return what names a model on the line; the package's own are called by their training."""
    if model.partition(":")[0] in MODELS.names():
        return model
    return "fine" if model.endswith("-fine") else "default"


def _count(key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise InvalidInput(
            f"Got {key}={value!r}, expected a whole number.", hint="0 means all cores."
        )
    return int(value)


def open(  # the name that a person types: triptych.open
    path: str | Path | None = None,
    *,
    name: str | None = None,
    model: str | None = None,
    recall: float | None = None,
    memory: str | int | None = None,
    index: str = "auto",
    precision: Precision = "fp32",
    tokens: bool = False,
    cache: bool | Cache = False,
) -> Collection:
    """Return the collection in the folder `path` (or ":memory:"), or the one called `name`.

    It is made where there is none, with `model` (see: triptych models) or TRIPTYCH_MODEL. The
    index is chosen to reach `recall` (of the true ten nearest, 0.97 unless said) within `memory`
    ("2GB", or bytes), or it is the kind that `index` names. A new collection keeps its vectors in
    `precision` fp32 or fp16, and with `tokens` the states of its items' tokens too, which
    `search(rerank=50)` compares one by one; not every model gives them. With `cache`, embeddings
    and answers are remembered: True has a cache of its own in this process, and in Redis where
    TRIPTYCH_REDIS_URL is set.
    """
    settings = Settings.from_env()
    if (path is None) == (name is None):
        raise InvalidInput(f"Got path={path!r} and name={name!r}, expected one of them.")
    where = settings.library().path(name) if name is not None else path
    assert where is not None, "checked above"
    tiers = settings.cache.open() if cache is True else cache or None
    collection = settings.open_collection(
        where,
        model=model,
        threads=settings.num_threads,
        index=index,
        budget=None if recall is memory is None else Budget.parse(recall, memory),
        precision=precision,
        tokens=tokens,
        cache=tiers,
    )
    if tiers is not None:
        answers = settings.answers(collection, cache=tiers, name=str(collection.folder)).attach()
        settings.upkeep(answers).start()
        if cache is True:
            weakref.finalize(collection, tiers.close)
    return collection


def collections() -> list[str]:
    """Return the names of the collections in the data folder."""
    return Settings.from_env().library().list()


def create(name: str, *, model: str | None = None) -> Collection:
    """Return the new, empty collection called `name`; raises InvalidInput where it exists."""
    return Settings.from_env().create_collection(name, model=model)


def drop(name: str) -> None:
    """Delete the collection called `name` and all that is in it; raises NotFound."""
    Settings.from_env().library().drop(name)
