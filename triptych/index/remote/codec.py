"""Requests and replies as frames, and back; whatever is wrong with a frame is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from types import NoneType
from typing import Any, get_args

import numpy as np

from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    DiskFull,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
    PictureError,
    TriptychError,
)
from triptych.index.base import checked_dim, checked_vectors
from triptych.index.remote.fields import LARGEST, area, column, of, text, whole
from triptych.index.remote.requests import (
    BeginSpace,
    Compact,
    Delete,
    DropSpace,
    Ping,
    PutVectors,
    Reply,
    Request,
    SwitchSpace,
    Touch,
    Write,
)
from triptych.index.remote.wire import ERROR, REPLY, REQUEST, Buffer, Frame, write_frame
from triptych.index.sqlite.meta import PRECISIONS, Space
from triptych.index.sqlite.records import Entry, FileState, Picture, Tokens, metadata_json
from triptych.types import Matrix, Modality

_MODALITIES: tuple[Modality, ...] = get_args(Modality)
_STRINGS = frozenset({str})
_ERRORS: dict[str, type[TriptychError]] = {
    kind.__name__: kind
    for kind in (
        CollectionBusy,
        CollectionDamaged,
        DiskFull,
        InvalidInput,
        ModelMismatch,
        NotAvailable,
        NotFound,
        TriptychError,
    )
}


def encode_request(request: Request) -> list[Buffer]:
    """Return the frame of a request; raises InvalidInput where it cannot travel."""
    match request:
        case Write():
            return _encode_write(request)
        case Delete():
            return write_frame(REQUEST, {"operation": "delete", "ids": list(request.ids)})
        case Touch():
            files = [_state(file) for file in request.states.values()]
            header = {"operation": "touch", "rows": list(request.states), "files": files}
            return write_frame(REQUEST, header)
        case Compact():
            return write_frame(REQUEST, {"operation": "compact"})
        case BeginSpace():
            return write_frame(REQUEST, {"operation": "begin", "space": list(request.space[1:])})
        case PutVectors():
            return _encode_vectors(request)
        case SwitchSpace():
            return write_frame(
                REQUEST,
                {
                    "operation": "switch",
                    "space": request.space,
                    "from_thumbnails": request.from_thumbnails,
                },
            )
        case DropSpace():
            return write_frame(REQUEST, {"operation": "drop", "space": request.space})
        case Ping():
            return write_frame(REQUEST, {"operation": "ping"})


def decode_request(frame: Frame) -> Request:
    """Return what was encoded; raises InvalidInput, NotAvailable for an unknown operation.

    Nothing is believed: types, ranges and lengths are checked, vectors are finite unit rows.
    """
    header, operation = frame.header, frame.header.get("operation")
    if frame.kind != REQUEST:
        raise InvalidInput(f"Got a message of kind {frame.kind}, expected a request.")
    match operation:
        case "write":
            return _decode_write(header, frame.body)
        case "delete":
            return Delete(ids=_ids(header))
        case "touch":
            rows = [whole(row, "row") for row in column(header, "rows", int)]
            files = [_file(state) for state in column(header, "files", list, count=len(rows))]
            return Touch(states=dict(zip(rows, files, strict=True)))
        case "compact":
            return Compact()
        case "begin":
            return BeginSpace(_space(of(list, header.get("space"), "space")))
        case "vectors":
            return _decode_vectors(header, frame.body)
        case "switch":
            lax = of(bool, header.get("from_thumbnails"), "from_thumbnails")
            return SwitchSpace(whole(header.get("space"), "space"), lax)
        case "drop":
            return DropSpace(whole(header.get("space"), "space"))
        case "ping":
            return Ping()
    raise NotAvailable(
        f"The process that writes knows no operation {operation!r}.",
        hint="Use the same release of Triptych for both.",
    )


def encode_reply(reply: Reply) -> list[Buffer]:
    """Return the frame of a reply."""
    return write_frame(REPLY, {"number": reply.number, "sequence": reply.sequence})


def decode_reply(frame: Frame) -> Reply:
    """Return the reply; raises the error that travelled in its place."""
    if frame.kind == ERROR:
        raise _error(frame)
    if frame.kind != REPLY:
        raise InvalidInput(f"Got a message of kind {frame.kind}, expected a reply.")
    number, sequence = (frame.header.get(name) for name in ("number", "sequence"))
    return Reply(number=whole(number, "number"), sequence=whole(sequence, "sequence"))


def encode_error(error: TriptychError) -> list[Buffer]:
    """Return the frame of an error, to be raised by the process that asked."""
    known = {*_ERRORS, PictureError.__name__}
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in known)
    fields = {"message": error.message, "hint": error.hint, "code": error.code}
    return write_frame(ERROR, {"error": name, **fields})


def _encode_write(request: Write) -> list[Buffer]:
    entries = request.entries
    dim = len(entries[0].vector) if entries else 0
    vectors_NM = np.empty((len(entries), dim), dtype="<f4")
    for row_M, entry in zip(vectors_NM, entries, strict=True):
        if entry.vector.shape != (dim,):
            raise InvalidInput(f"{entry.id!r}: got {len(entry.vector)} numbers, expected {dim}.")
        row_M[:] = entry.vector
    header = {
        "operation": "write",
        "replace": request.replace,
        "fingerprint": request.fingerprint,
        "dim": dim,
        "ids": [entry.id for entry in entries],
        "modalities": [entry.modality for entry in entries],
        "texts": [entry.text for entry in entries],
        "uris": [entry.uri for entry in entries],
        "metadata": [_metadata(entry) for entry in entries],
        "contents": [entry.content for entry in entries],
        "files": [None if e.file is None else _state(e.file) for e in entries],
        "thumbnails": [None if e.thumbnail is None else len(e.thumbnail) for e in entries],
        "tokens": [None if e.tokens is None else e.tokens.shape for e in entries],
        "pictures": [None if e.picture is None else len(e.picture.data or b"") for e in entries],
    }
    parts = [entry.thumbnail for entry in entries if entry.thumbnail is not None]
    parts += [entry.tokens.tobytes() for entry in entries if entry.tokens is not None]
    parts += [entry.picture.data or b"" for entry in entries if entry.picture is not None]
    vectors = vectors_NM.reshape(-1).view(np.uint8).data
    try:
        return write_frame(REQUEST, header, [vectors, b"".join(parts)])
    except InvalidInput:
        for entry in entries:
            metadata_json(entry.id, entry.metadata)  # names the one that is no JSON
        raise


def _decode_write(header: dict[str, Any], body: memoryview) -> Write:
    ids = _ids(header)
    count = len(ids)
    modalities = column(header, "modalities", str, count=count)
    if unknown := set(modalities).difference(_MODALITIES):
        raise InvalidInput(f"Got the modalities {unknown}, expected some of {_MODALITIES}.")
    vectors_NM, thumbnails, tokens, pictures = _body(header, body, count)
    columns = zip(
        ids,
        modalities,
        vectors_NM,
        column(header, "texts", str, NoneType, count=count),
        column(header, "uris", str, NoneType, count=count),
        column(header, "metadata", dict, count=count),
        column(header, "contents", str, NoneType, count=count),
        column(header, "files", list, NoneType, count=count),
        thumbnails,
        tokens,
        pictures,
        strict=True,
    )
    entries = [
        Entry(
            id=id,
            modality=modality,
            vector=vector_M,
            text=text,
            uri=uri,
            metadata=metadata,
            content=content,
            file=None if file is None else _file(file),
            thumbnail=thumbnail,
            tokens=tokens,
            picture=picture,
        )
        for (
            id,
            modality,
            vector_M,
            text,
            uri,
            metadata,
            content,
            file,
            thumbnail,
            tokens,
            picture,
        ) in columns
    ]
    return Write(
        entries=entries,
        replace=of(bool, header.get("replace"), "replace"),
        fingerprint=of(str, header.get("fingerprint"), "fingerprint"),
    )


def _encode_vectors(request: PutVectors) -> list[Buffer]:
    vectors_NM = np.ascontiguousarray(request.vectors_NM, dtype="<f4")
    header = {
        "operation": "vectors",
        "space": request.space,
        "rows": request.rows_N.tolist(),
        "dim": vectors_NM.shape[1],
        "tokens": [None if one is None else one.shape for one in request.states],
    }
    states = b"".join(one.tobytes() for one in request.states if one is not None)
    return write_frame(REQUEST, header, [vectors_NM.reshape(-1).view(np.uint8).data, states])


def _decode_vectors(header: dict[str, Any], body: memoryview) -> PutVectors:
    rows = [whole(row, "row") for row in column(header, "rows", int)]
    dim = checked_dim(whole(header.get("dim"), "dim"))
    shapes = column(header, "tokens", list, NoneType)
    sizes = [0 if shape is None else area(shape) for shape in shapes]
    ends = list(accumulate(sizes, initial=4 * len(rows) * dim))
    if ends[-1] != len(body):
        raise InvalidInput(f"Got {len(body)} bytes of vectors and states, expected {ends[-1]}.")
    vectors_NM = np.frombuffer(body[: ends[0]], dtype="<f4").reshape(len(rows), dim)
    parts = [body[start:end] for start, end in pairwise(ends)]
    return PutVectors(
        space=whole(header.get("space"), "space"),
        rows_N=np.array(rows, dtype=np.int64),
        vectors_NM=checked_vectors(vectors_NM, dim),
        states=_states(parts, shapes),
    )


def _states(parts: Sequence[memoryview], shapes: Sequence[Any]) -> list[Tokens | None]:
    pairs = zip(parts, shapes, strict=True)
    return [
        None if shape is None else np.frombuffer(part, dtype=np.int8).reshape(shape)
        for part, shape in pairs
    ]


def _space(fields: list[Any]) -> Space:
    if len(fields) != 5 or fields[3] not in PRECISIONS:
        raise InvalidInput(
            f"Got {fields!r:.80} as space, expected model, fingerprint, dim, fp32, token width."
        )
    model, fingerprint, dim, precision, width = fields
    names = of(str, model, "model"), of(str, fingerprint, "fingerprint")
    return Space(0, *names, checked_dim(whole(dim, "dim")), precision, whole(width, "width"))


def _body(
    header: dict[str, Any], body: memoryview, count: int
) -> tuple[Matrix, list[bytes | None], list[Tokens | None], list[Picture | None]]:
    dim = checked_dim(whole(header.get("dim"), "dim")) if count else 0
    lengths = column(header, "thumbnails", int, NoneType, count=count)
    shapes = column(header, "tokens", list, NoneType, count=count)
    is_given = count and "pictures" in header  # by an older process it is not
    sent = column(header, "pictures", int, NoneType, count=count) if is_given else [None] * count
    sizes = [0 if length is None else whole(length, "length") for length in lengths]
    sizes += [0 if shape is None else area(shape) for shape in shapes]
    sizes += [0 if length is None else whole(length, "length") for length in sent]
    ends = list(accumulate(sizes, initial=4 * count * dim))
    if ends[-1] != len(body):
        raise InvalidInput(f"Got {len(body)} bytes of vectors and thumbnails, expected {ends[-1]}.")
    vectors_NM = np.frombuffer(body[: ends[0]], dtype="<f4").reshape(count, dim)
    parts = [body[start:end] for start, end in pairwise(ends)]
    thumbnails = [
        None if length is None else bytes(part)
        for length, part in zip(lengths, parts[:count], strict=True)
    ]
    tokens = _states(parts[count : 2 * count], shapes)
    pictures = [
        None if length is None else Picture.of(bytes(part))
        for length, part in zip(sent, parts[2 * count :], strict=True)
    ]
    checked_NM = checked_vectors(vectors_NM, dim) if count else vectors_NM
    return checked_NM, thumbnails, tokens, pictures


def _error(frame: Frame) -> TriptychError:
    header = frame.header
    name = of(str, header.get("error"), "error")
    message = of(str, header.get("message"), "message")
    hint = text(header.get("hint"), "hint")
    if name == PictureError.__name__:
        return PictureError(of(str, header.get("code"), "code"), message, hint=hint)
    return _ERRORS.get(name, TriptychError)(message, hint=hint)  # unknown: of a newer release


def _metadata(entry: Entry) -> dict[str, Any]:
    metadata = entry.metadata
    if not isinstance(metadata, Mapping) or not _STRINGS.issuperset(map(type, metadata)):
        metadata_json(entry.id, metadata)  # JSON would make strings of other keys
    return dict(metadata)


def _state(file: FileState) -> tuple[str, int, int]:
    return file.root, file.size, file.mtime_ns


def _file(state: list[Any]) -> FileState:
    if len(state) != 3:
        raise InvalidInput(f"Got {len(state)} fields of a file, expected 3.")
    root, size, mtime_ns = state
    if type(mtime_ns) is not int or abs(mtime_ns) > LARGEST:
        raise InvalidInput(f"Got the time {mtime_ns!r:.40}, expected nanoseconds.")
    return FileState(root=of(str, root, "root"), size=whole(size, "size"), mtime_ns=mtime_ns)


def _ids(header: dict[str, Any]) -> list[str]:
    ids = column(header, "ids", str)
    if not all(ids):
        raise InvalidInput("An item's id is a non-empty string, got an empty one.")
    return ids
