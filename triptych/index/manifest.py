"""What ties a saved index to one collection, and to one state of its store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from triptych.errors import CollectionDamaged
from triptych.types import Precision

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The collection that an index must belong to.

    `history` holds, for each epoch of the store, the first and the last sequence it saw.
    """

    collection: str
    fingerprint: str
    dim: int
    precision: Precision
    history: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the store held when it was read."""

    epoch: str
    sequence: int
    last_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the files must be, and the state of the store that they show."""

    format: int = FORMAT
    collection: str
    fingerprint: str
    dim: int
    precision: str
    epoch: str
    sequence: int
    last_row: int
    count: int
    kind: str
    effort: int
    refine: int
    recall: float
    folder: str
    num_bytes: int
    rows_seal: str
    ann_sha256: str | None


def read(folder: Path) -> Manifest | None:
    """Return the manifest in a folder, None where there is none; raises CollectionDamaged."""
    try:
        body = json.loads((folder / MANIFEST).read_bytes())
        version = body["format"]
        if version != FORMAT:
            raise CollectionDamaged(f"it has format {version}, this program reads {FORMAT}")
        if body.pop("checksum") != checksum(body):
            raise CollectionDamaged("the manifest is damaged")
        return _typed(Manifest(**body))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, AttributeError):
        raise CollectionDamaged("the manifest cannot be read") from None


def encoded(manifest: Manifest) -> bytes:
    """Return what `read` reads."""
    body = asdict(manifest)
    return json.dumps(body | {"checksum": checksum(body)}, indent=1).encode()


def check_identity(manifest: Manifest, identity: Identity) -> None:
    """Raise CollectionDamaged unless it is the collection's, of a state that its store had."""
    got = (manifest.collection, manifest.fingerprint, manifest.dim, manifest.precision)
    wanted = (identity.collection, identity.fingerprint, identity.dim, identity.precision)
    if got != wanted:
        raise CollectionDamaged("it belongs to another collection, model or precision")
    first, end = identity.history.get(manifest.epoch, (0, -1))
    if not first <= manifest.sequence <= end:
        raise CollectionDamaged("it shows a state that this store never had")


def checksum(body: dict[str, Any]) -> str:
    """Return the hash of all other fields."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _typed(manifest: Manifest) -> Manifest:
    """Return the manifest; raises TypeError where a field has another type than it declares."""
    for field in fields(manifest):
        got = type(getattr(manifest, field.name)).__name__
        if got not in str(field.type).replace("None", "NoneType").split(" | "):
            raise TypeError(field.name)
    return manifest
