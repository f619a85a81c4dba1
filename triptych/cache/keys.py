"""The names under which things are cached (law 6).

    tr1:e:<tenant>:<content, fingerprint>                             an embedding
    tr1:a:<tenant, collection>:<generation>:<fingerprint, question>   an answer

Every part between colons is a hash in hexadecimal digits: no text of a user is ever a part of a
key, and a key's length says nothing. The first parts stand apart, so that what belongs to them can
be purged. `tr1` is the version of all that is below it: releases that differ in it share nothing.

`encode` is unambiguous: two values have one encoding only if they are equal and of equal types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

VERSION = b"tr1"

_DOUBLE = struct.Struct("<d")
_MANY = 16  # numbers
_SCOPE_BYTES, _DIGEST_BYTES = 10, 20  # 80 bits name a scope, 160 a content: no collision by chance


def encode(value: Any) -> bytes:
    """Return the value as bytes: None, bool, int, float, str, bytes, arrays, lists and mappings.

    A tuple counts as a list, and the order of a mapping's keys does not count. Raises TypeError
    for anything else.
    """
    return _ENCODERS.get(type(value), _encode_other)(value)


def digest(*parts: Any) -> bytes:
    """Return 40 hexadecimal digits that stand for these values in this order."""
    return blake2b(encode(parts), digest_size=_DIGEST_BYTES).hexdigest().encode()


def scope(*parts: str) -> bytes:
    """Return 20 hexadecimal digits for a tenant, or a tenant's collection."""
    return blake2b(encode(parts), digest_size=_SCOPE_BYTES).hexdigest().encode()


def embedding_prefix(tenant: str) -> bytes:
    """Return how the keys of all embeddings of a tenant begin."""
    return b"%b:e:%b:" % (VERSION, scope(tenant))


def answer_prefix(tenant: str, collection: str) -> bytes:
    """Return how the keys of all answers from a tenant's collection begin."""
    return b"%b:a:%b:" % (VERSION, scope(tenant, collection))


def _encode_text(value: str) -> bytes:
    # a file's name may hold what is not UTF-8
    body = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(body), body)


def _encode_bytes(value: bytes) -> bytes:
    return b"b%d:%b" % (len(value), value)


def _encode_list(value: Sequence[Any]) -> bytes:
    if len(value) > _MANY and set(map(type, value)) == {float}:
        return b"l%d:%b" % (len(value), _encode_floats(value))
    get = _ENCODERS.get
    return b"l%d:%b" % (
        len(value),
        b"".join([get(type(one), _encode_other)(one) for one in value]),
    )


def _encode_floats(value: Sequence[float]) -> bytes:
    """Encode a vector as its numbers one by one would be, all at once."""
    encoded = np.empty((len(value), 1 + _DOUBLE.size), dtype=np.uint8)
    encoded[:, 0] = ord("d")
    encoded[:, 1:] = np.array(value, dtype="<f8").view(np.uint8).reshape(len(value), -1)
    return encoded.tobytes()


def _encode_mapping(value: Mapping[Any, Any]) -> bytes:
    pairs = sorted((encode(key), encode(one)) for key, one in value.items())
    return b"m%d:%b" % (len(pairs), b"".join([key + one for key, one in pairs]))


def _encode_array(value: np.ndarray[Any, Any]) -> bytes:
    if value.dtype.hasobject:
        raise TypeError(f"An array of {value.dtype} has no encoding.")
    head = f"{value.dtype.str}{value.shape}".encode()
    return b"a%d:%b%b" % (len(head), head, value.tobytes())


def _encode_other(value: Any) -> bytes:
    """Encode subclasses, and what is like one of the types above."""
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _encode_bytes(bytes(value))
    if isinstance(value, np.ndarray | np.generic):
        return _encode_array(np.asarray(value))
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    if isinstance(value, Sequence):
        return _encode_list(value)
    raise TypeError(f"A {type(value).__name__} has no encoding.")


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"n",
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"i%d;" % value,
    float: lambda value: b"d" + _DOUBLE.pack(value),
    str: _encode_text,
    bytes: _encode_bytes,
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_mapping,
    np.ndarray: _encode_array,
}
