"""The methods of a collection, each as the request it makes and the way its reply is read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np

from triptych.client.call import LINES, Call, encoded
from triptych.client.failures import error_from
from triptych.client.incoming import hits_of
from triptych.client.outgoing import filter_json, item_line, part_json
from triptych.errors import NotFound
from triptych.filters import Filter, parse_filter
from triptych.index.sqlite.records import Record
from triptych.retrieval.arguments import as_ids, cosine, one_limit, share, wanted_ids, whole
from triptych.retrieval.prepare import AnyItems, next_size
from triptych.retrieval.query import Term, build_query
from triptych.types import Hit, ImageSource, Item, Matrix, Part, Precision, Query

AnyFilter: TypeAlias = Filter | Mapping[str, Any] | str

_ITEMS = 256  # in one request
_FIRST, _BYTES = 2**18, 2**23  # of them, in the first one and where they are soon stored


class Calls:
    """What is asked of one collection of a server; the arguments are those of `Collection`."""

    def __init__(self, collection: str) -> None:
        self._path = f"/v1/collections/{quote(collection, safe='')}"
        self.name = collection

    def writes(self, items: AnyItems, *, replace: bool) -> Iterator[Call[int]]:
        """Yield requests of one batch each, whose items are stored when it is answered."""
        if isinstance(items, Item | Mapping):
            items = [items]
        lines: list[bytes] = []
        size, most = 0, _FIRST
        for item in items:
            line = item_line(item)
            if lines and (len(lines) == _ITEMS or size + len(line) > most):
                start = time.monotonic()
                yield self._write(lines, replace=replace)
                most = next_size(most, size, time.monotonic() - start, most=_BYTES)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield self._write(lines, replace=replace)

    def delete(self, ids: str | Iterable[str]) -> Call[int]:
        """Return how many of the ids were there and are gone."""
        return Call(
            method="POST",
            path=f"{self._path}/items/delete",
            body=encoded({"ids": as_ids(ids)}),
            read=lambda said: int(said["deleted"]),
            repeatable=False,  # the second time none would be there
        )

    def get(self, ids: str | Iterable[str]) -> Call[list[Record | None]]:
        """Return what is stored under each id, None where there is nothing; `row` is -1."""
        return self._get(as_ids(ids), _records)

    def vectors(self, ids: Sequence[str]) -> Call[Matrix]:
        """Return the stored unit rows of `ids`, in order; raises NotFound for an unknown id."""
        names = as_ids(ids)
        if not names:  # no row says how wide they are

            def none(said: Any) -> Matrix:
                return np.empty((0, said["dim"]), dtype=np.float32)

            return Call(method="GET", path=self._path, read=none)

        def read(said: Any) -> Matrix:
            for name, item in zip(names, said["items"], strict=True):
                if item is None:
                    raise NotFound(f"There is no item {name!r} in this collection.")
            rows = [item["vector"] for item in said["items"]]
            return np.asarray(rows, dtype=np.float32)

        return self._get(names, read, vectors=True)

    def count(self, filter: AnyFilter | None = None) -> Call[int]:
        """Return how many items there are, or how many of them match."""
        parse_filter(filter)
        return self._ask("items/count", {"filter": filter_json(filter)}, lambda x: int(x["count"]))

    def facets(
        self, fields: str | Sequence[str], *, filter: AnyFilter | None = None, limit: int = 20
    ) -> Call[dict[str, list[tuple[Any, int]]]]:
        """Return the `limit` most frequent values of each metadata field, with their counts."""
        parse_filter(filter)
        body = {
            "fields": [fields] if isinstance(fields, str) else list(fields),
            "filter": filter_json(filter),
            "limit": whole("limit", limit, least=1),
        }
        return self._ask("facets", body, _facets)

    def search(
        self,
        query: str | Query | Part | Sequence[Part] | None = None,
        *,
        image: ImageSource | Sequence[ImageSource] | None = None,
        minus: Term | Sequence[Term] = (),
        like: str | Sequence[str] | None = None,
        vector: Any | None = None,
        limit: int = 10,
        top_k: int | None = None,
        k: int | None = None,
        offset: int = 0,
        filter: AnyFilter | None = None,
        threshold: float | None = None,
        hybrid: bool | float = False,
        rerank: int = 0,
        diversity: float = 0.0,
        group_by: str | None = None,
        group_size: int = 1,
        explain: bool | Iterable[str] = False,
    ) -> Call[list[Hit]]:
        """Return the nearest items, best first, as `Collection.search` does.

        Pictures are read here: a path is a path of this machine.
        """
        asked = build_query(query, image=image, minus=minus, like=like or (), vector=vector)
        parse_filter(filter)
        body = {
            "parts": [part_json(part) for part in asked.parts],
            "limit": one_limit(limit, top_k, k),
            "offset": whole("offset", offset, least=0),
            "filter": filter_json(filter),
            "threshold": cosine(threshold),
            "hybrid": hybrid if isinstance(hybrid, bool) else share("hybrid", hybrid),
            "rerank": whole("rerank", rerank, least=0),
            "diversity": share("diversity", diversity),
            "group_by": group_by,
            "group_size": whole("group_size", group_size, least=1),
        }
        wanted = wanted_ids(explain)
        body["explain"] = wanted if isinstance(wanted, bool) else sorted(wanted)
        return self._ask("search", body, hits_of)

    def thumbnail(self, id: str) -> Call[bytes | None]:
        """Return a small JPEG of the item's picture, None where it has none."""
        return self._raw(id, "image")

    def picture(self, id: str) -> Call[bytes | None]:
        """Return the picture as it was sent, byte for byte, None where none was kept."""
        return self._raw(id, "picture")

    def info(self) -> Call[dict[str, Any]]:
        """Return what the collection is, as the server tells it."""
        return Call(method="GET", path=self._path, read=dict)

    def compact(self) -> Call[None]:
        """Give space back, overwrite what was deleted, and build the index anew."""
        return Call(method="POST", path=f"{self._path}/compact", read=_nothing)

    def create(
        self, *, model: str | None = None, precision: Precision = "fp32", tokens: bool = False
    ) -> Call[dict[str, Any]]:
        """Make the collection and return its info; raises InvalidInput where it exists."""
        body = {"name": self.name, "precision": precision, "tokens": tokens}
        if model is not None:
            body["model"] = model
        return Call(
            method="POST", path="/v1/collections", body=encoded(body), read=dict, repeatable=False
        )

    def drop(self) -> Call[None]:
        """Delete the collection and all that is in it; raises NotFound."""
        return Call(method="DELETE", path=self._path, read=_nothing, repeatable=False)

    def collections(self) -> Call[list[str]]:
        """Return the names of the server's collections."""
        return Call(
            method="GET",
            path="/v1/collections",
            read=lambda said: [one["name"] for one in said["collections"]],
        )

    def _raw(self, id: str, what: str) -> Call[bytes | None]:
        segment = quote(as_ids(id)[0], safe="").replace(".", "%2E")  # ".." would lead elsewhere
        path = f"{self._path}/items/{segment}/{what}"
        return Call(method="GET", path=path, read=_bytes, is_json=False)

    def _write(self, lines: list[bytes], *, replace: bool) -> Call[int]:
        return Call(
            method="PUT" if replace else "POST",
            path=f"{self._path}/items",
            body=b"".join(lines),
            content_type=LINES,
            read=_written,
            repeatable=replace,
            num_items=len(lines),
        )

    def _get(self, ids: list[str], read: Any, *, vectors: bool = False) -> Call[Any]:
        return self._ask("items/get", {"ids": ids, "vectors": vectors}, read)

    def _ask(self, route: str, body: Mapping[str, Any], read: Any) -> Call[Any]:
        said = {key: value for key, value in body.items() if value is not None}
        return Call(method="POST", path=f"{self._path}/{route}", body=encoded(said), read=read)


def _written(said: Any) -> int:
    """Raise the first error of a batch, saying what became of the others."""
    written, errors = int(said["written"]), said["errors"]
    if errors:
        first, id = errors[0]["error"], errors[0]["id"]
        named = "" if id is None or repr(id) in first["message"] else f"{id!r}: "
        rest = f" {said['num_errors']} of this batch were refused, {written} were stored."
        error = error_from(first["code"], named + first["message"] + rest, first.get("hint"))
        error.taken_in = written + int(said["num_errors"])
        raise error
    return written


def _records(said: Any) -> list[Record | None]:
    return [
        None
        if item is None
        else Record(
            row=-1,
            id=item["id"],
            modality=item["modality"],
            text=item["text"],
            uri=item["uri"],
            metadata=item["metadata"],
        )
        for item in said["items"]
    ]


def _facets(said: Any) -> dict[str, list[tuple[Any, int]]]:
    return {
        field: [(one["value"], one["count"]) for one in values]
        for field, values in said["facets"].items()
    }


def _bytes(body: bytes | None) -> bytes | None:
    return body


def _nothing(said: Any) -> None:
    return None
