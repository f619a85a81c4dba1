"""Values as they lie in a store that others can write to.

    4 bytes   b"TRC" and the version of this layout
    16 bytes  BLAKE2b of the key and the value, keyed with the secret where there is one
    the rest  the value

The key is in the checksum, so that a value which was put under another key, or an answer to another
question, is told from the right one. Without a secret the checksum finds damage and mistakes; with
one it also finds what somebody else has written.
"""

from __future__ import annotations

from hashlib import blake2b
from hmac import compare_digest

_MAGIC = b"TRC\x01"
_SUM = 16
_HEAD = len(_MAGIC) + _SUM


class Seal:
    """Closes values and opens those that it closed itself."""

    def __init__(self, secret: bytes = b"") -> None:
        # any length of secret makes a key of the length that BLAKE2b takes
        self._secret = blake2b(secret, digest_size=32).digest() if secret else b""

    def close(self, key: bytes, value: bytes) -> bytes:
        """Return the value with its head."""
        return b"".join((_MAGIC, self._sum(key, value), value))

    def open(self, key: bytes, sealed: object) -> bytes | None:
        """Return the value that was closed under `key`, None for anything else."""
        if not isinstance(sealed, bytes) or sealed[: len(_MAGIC)] != _MAGIC:
            return None
        value = sealed[_HEAD:]
        if not compare_digest(sealed[len(_MAGIC) : _HEAD], self._sum(key, value)):
            return None
        return value

    def _sum(self, key: bytes, value: bytes) -> bytes:
        made = blake2b(key, digest_size=_SUM, key=self._secret)
        made.update(b"%d:" % len(key))  # where the key ends
        made.update(value)
        return made.digest()
