"""Embedded stores: items with vectors and metadata in, hits with metadata out.

Each is opened, filled and asked as its documentation says, with the index that it offers for
100,000 vectors, and the smallest knob that reaches the recall.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from benchmarks.peers.corpus import DIM, Floats, K, metadata

Only: TypeAlias = dict[str, int] | None  # what a field must be

EFS = (16, 32, 64, 100, 150, 200, 300, 400)


class EmbeddedStore(Protocol):
    """One folder; ids are positions in the corpus. `knobs` ascend in effort."""

    knobs: tuple[Any, ...]

    def open(self, folder: Path) -> None:
        """Open what is in the folder, or begin."""

    def add(self, ids: Sequence[int], vectors_NM: Floats) -> None:
        """Write items with `metadata` of their ids; durable on return, as the store means it."""

    def settle(self) -> None:
        """Do what one does after loading: build indices, merge parts."""

    def tune(self, knob: Any) -> None:
        """Take one of `knobs` for the searches that follow."""

    def search(self, vector_M: Floats, only: Only = None) -> list[int]:
        """Return the ids of the best ten, whose metadata was fetched too."""

    def delete(self, ids: Sequence[int]) -> None:
        """Delete items."""

    def compact(self) -> None:
        """Give space back, by what the store offers for it."""

    def close(self) -> None:
        """Let go of the folder."""


class Chroma:
    """chromadb's PersistentClient."""

    knobs = EFS

    def __init__(self) -> None:
        import chromadb

        self._chromadb = chromadb

    def open(self, folder: Path) -> None:
        self._folder = folder
        settings = self._chromadb.Settings(anonymized_telemetry=False)
        self._client = self._chromadb.PersistentClient(str(folder), settings=settings)
        self._items = self._client.get_or_create_collection(
            "items", configuration={"hnsw": {"space": "ip"}}, embedding_function=None
        )

    def add(self, ids: Sequence[int], vectors_NM: Floats) -> None:
        self._items.upsert(
            ids=[str(id) for id in ids],
            embeddings=vectors_NM,
            metadatas=[metadata(id) for id in ids],
        )

    def settle(self) -> None:
        pass

    def tune(self, knob: int) -> None:
        self._items.modify(configuration={"hnsw": {"ef_search": knob}})

    def search(self, vector_M: Floats, only: Only = None) -> list[int]:
        found = self._items.query(
            query_embeddings=[vector_M],
            n_results=K,
            where=only,
            include=["distances", "metadatas"],
        )
        return [int(id) for id in found["ids"][0]]

    def delete(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), 5000):
            self._items.delete(ids=[str(id) for id in ids[start : start + 5000]])

    def compact(self) -> None:
        command = Path(sys.executable).with_name("chroma")
        subprocess.run(
            [command, "vacuum", "--path", self._folder, "--force"],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def close(self) -> None:
        pass


class Lance:
    """lancedb with a scalar index on the filtered field, and no vector index: an exact scan.

    Items are merged by id, as every other store here keeps ids unique.
    """

    knobs: tuple[Any, ...] = (None,)
    index: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        import lancedb
        import pyarrow

        self._lancedb, self._pa = lancedb, pyarrow
        self._knob: Any = None

    def open(self, folder: Path) -> None:
        pa = self._pa
        self._schema = pa.schema(
            [
                ("id", pa.int64()),
                ("cat", pa.int64()),
                ("lang", pa.string()),
                ("title", pa.string()),
                ("ts", pa.int64()),
                ("vector", pa.list_(pa.float32(), DIM)),
            ]
        )
        database = self._lancedb.connect(str(folder))
        self._items = database.create_table("items", schema=self._schema, exist_ok=True)

    def add(self, ids: Sequence[int], vectors_NM: Floats) -> None:
        pa, rows = self._pa, [metadata(id) for id in ids]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_NM.ravel()), DIM)
        self._write(pa.table({"id": list(ids), **columns, "vector": vectors}, schema=self._schema))

    def _write(self, rows: Any) -> None:
        merge = self._items.merge_insert("id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    def settle(self) -> None:
        self._items.optimize()
        self._items.create_scalar_index("cat")
        if self.index:
            self._items.create_index(metric="dot", vector_column_name="vector", **self.index)

    def tune(self, knob: Any) -> None:
        self._knob = knob

    def search(self, vector_M: Floats, only: Only = None) -> list[int]:
        asked = self._items.search(vector_M).metric("dot").limit(K)
        asked = asked.select(["id", "cat", "lang", "title", "ts", "_distance"])
        if self._knob is not None:
            asked = asked.ef(self._knob[0]).refine_factor(self._knob[1])
        if only is not None:
            asked = asked.where(f"cat = {only['cat']}", prefilter=True)
        return [row["id"] for row in asked.to_arrow().to_pylist()]

    def delete(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), 5000):
            self._items.delete(f"id in ({','.join(map(str, ids[start : start + 5000]))})")

    def compact(self) -> None:
        self._items.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

    def close(self) -> None:
        pass


class LanceIndexed(Lance):
    """lancedb with its graph over eight-bit codes, rescored; rows are appended unlooked at."""

    knobs = ((30, 2), (50, 2), (100, 2), (200, 2), (400, 4))
    index = MappingProxyType(
        {"index_type": "IVF_HNSW_SQ", "num_partitions": 1, "m": 20, "ef_construction": 150}
    )

    def _write(self, rows: Any) -> None:
        self._items.add(rows)


class Qdrant:
    """qdrant-client without a server: its local mode, an exact scan."""

    knobs = (None,)

    def __init__(self) -> None:
        import qdrant_client
        from qdrant_client import models

        self._qdrant, self._models = qdrant_client, models

    def open(self, folder: Path) -> None:
        self._client = self._qdrant.QdrantClient(path=str(folder))
        if not self._client.collection_exists("items"):
            shape = self._models.VectorParams(size=DIM, distance=self._models.Distance.DOT)
            self._client.create_collection("items", vectors_config=shape)

    def add(self, ids: Sequence[int], vectors_NM: Floats) -> None:
        batch = self._models.Batch(
            ids=list(ids), vectors=vectors_NM.tolist(), payloads=[metadata(id) for id in ids]
        )
        self._client.upsert("items", batch)

    def settle(self) -> None:
        pass

    def tune(self, knob: None) -> None:
        pass

    def search(self, vector_M: Floats, only: Only = None) -> list[int]:
        m = self._models
        match = only and [
            m.FieldCondition(key=field, match=m.MatchValue(value=value))
            for field, value in only.items()
        ]
        found = self._client.query_points(
            "items",
            query=vector_M.tolist(),
            limit=K,
            query_filter=m.Filter(must=match) if match else None,
            with_payload=True,
        )
        return [point.id for point in found.points]

    def delete(self, ids: Sequence[int]) -> None:
        self._client.delete("items", self._models.PointIdsList(points=list(ids)))

    def compact(self) -> None:
        pass

    def close(self) -> None:
        self._client.close()


class Milvus:
    """milvus-lite by pymilvus, with a graph."""

    knobs = EFS

    def __init__(self) -> None:
        import pymilvus

        self._pymilvus = pymilvus
        self._effort = EFS[0]

    def open(self, folder: Path) -> None:
        kinds = self._pymilvus.DataType
        self._client = self._pymilvus.MilvusClient(str(folder / "items.db"))
        if not self._client.has_collection("items"):
            schema = self._client.create_schema()
            schema.add_field("id", kinds.INT64, is_primary=True)
            schema.add_field("cat", kinds.INT64)
            schema.add_field("lang", kinds.VARCHAR, max_length=8)
            schema.add_field("title", kinds.VARCHAR, max_length=64)
            schema.add_field("ts", kinds.INT64)
            schema.add_field("vector", kinds.FLOAT_VECTOR, dim=DIM)
            graph = self._client.prepare_index_params()
            graph.add_index(
                "vector",
                index_type="HNSW",
                metric_type="IP",
                params={"M": 16, "efConstruction": 100},
            )
            self._client.create_collection("items", schema=schema, index_params=graph)
        self._client.load_collection("items")

    def add(self, ids: Sequence[int], vectors_NM: Floats) -> None:
        rows = zip(ids, vectors_NM, strict=True)
        self._client.upsert("items", [{"id": id, **metadata(id), "vector": v} for id, v in rows])

    def settle(self) -> None:
        self._client.flush("items")

    def tune(self, knob: int) -> None:
        self._effort = knob

    def search(self, vector_M: Floats, only: Only = None) -> list[int]:
        (found,) = self._client.search(
            "items",
            data=[vector_M],
            limit=K,
            filter="" if only is None else f"cat == {only['cat']}",
            output_fields=["cat", "lang", "title", "ts"],
            search_params={"params": {"ef": self._effort}},
        )
        return [hit["id"] for hit in found]

    def delete(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), 5000):
            self._client.delete("items", ids=list(ids[start : start + 5000]))

    def compact(self) -> None:
        self._client.flush("items")
        self._client.compact("items")

    def close(self) -> None:
        self._client.close()
