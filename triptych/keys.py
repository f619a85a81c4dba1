"""API keys: made at random, kept as hashes in one file.

A key has 256 random bits, so one SHA-256 of it is safe to keep: nobody can try them all, and a slow
hash, which protects passwords that people choose, would let strangers burn our processor.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from triptych.errors import InvalidInput, NotAvailable

Role: TypeAlias = Literal["read", "write", "admin"]
"""Each may do what the one before it may."""

ROLES: tuple[Role, ...] = get_args(Role)
SHORTEST = 32
"""Characters of a key that a person brings along."""

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is kept of a key; the key itself is not."""

    name: str
    sha256: str
    tenant: str = "default"
    role: Role = "read"
    rate: float | None = None  # requests a second; None: what the server says, 0: no limit
    daily: int | None = None  # items and texts embedded a day; None: no quota

    def __post_init__(self) -> None:
        for what, value in (("name", self.name), ("tenant", self.tenant)):
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise InvalidInput(
                    f"The {what} of a key is 1 to 64 of a-z, 0-9, _ and -, got {value!r}."
                )
        if not isinstance(self.sha256, str) or not _DIGEST.fullmatch(self.sha256):
            raise InvalidInput(f"The key {self.name!r} has no SHA-256 in hex.")
        if self.role not in ROLES:
            raise InvalidInput(f"A role is {', '.join(ROLES)}, got {self.role!r}.")
        for number in (self.rate, self.daily):
            if number is not None and (
                isinstance(number, str | bool) or not 0 <= number < math.inf
            ):
                raise InvalidInput(f"A limit of {self.name!r} is 0 or more, got {number!r}.")

    def may(self, role: Role) -> bool:
        """Whether this key has the role, or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Keys:
    """Looks keys up by what a caller presents."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_digest = {bytes.fromhex(key.sha256): key for key in keys}

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, presented: str | bytes) -> Key | None:
        """Return the key, None for an unknown one.

        The time tells nothing of use: what is looked up, and compared in constant time, is a
        digest that a stranger cannot steer towards a stored one.
        """
        raw = (
            presented.encode("utf-8", "surrogatepass") if isinstance(presented, str) else presented
        )
        digest = hashlib.sha256(raw).digest()
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(digest, bytes.fromhex(key.sha256)):
            return None
        return key


def check_sendable(key: str) -> None:
    """Raise InvalidInput for what no header can hold; the key is not shown: logs are read."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidInput(
            "The key is empty, or holds what no key does: a space, a line end, no ASCII.",
            hint="Of one that was read from a file, strip the line end.",
        )


def new_key(name: str, **settings: Any) -> tuple[str, Key]:
    """Return a fresh secret, and what is kept of it; `settings` are the fields of Key."""
    secret = f"tt_{secrets.token_urlsafe(32)}"
    return secret, kept(secret, name=name, **settings)


def kept(secret: str, *, name: str, **settings: Any) -> Key:
    """Return what is kept of a secret; raises InvalidInput for one that could be guessed."""
    if len(secret) < SHORTEST:
        raise InvalidInput(
            f"A key has {SHORTEST} characters or more, got {len(secret)}.",
            hint="Make one: triptych keys add keys.json --name me",
        )
    check_sendable(secret)
    return Key(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), **settings)


def read_keys(path: Path) -> list[Key]:
    """Return the keys of the file; raises NotAvailable or InvalidInput where it is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise NotAvailable(
            f"The key file {path} cannot be read: {os.strerror(error.errno or 0)}.",
            hint=f"Make one: triptych keys add {path} --name me --role admin",
        ) from None
    except ValueError:
        raise InvalidInput(f"The key file {path} is no JSON.") from None
    listed = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InvalidInput(f'The key file {path} is not of the form {{"keys": [{{...}}]}}.')
    known = {field.name for field in fields(Key)}
    for one in listed:
        if unknown := set(one) - known or {"name", "sha256"} - set(one):
            raise InvalidInput(f"The key file {path}: {sorted(unknown)} unknown or missing.")
    return _unique([Key(**one) for one in listed])


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Replace the file whole, readable by its owner only."""
    said = [{k: v for k, v in asdict(key).items() if v is not None} for key in _unique(keys)]
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"keys": said}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        reason = os.strerror(error.errno or 0)
        raise NotAvailable(f"The key file {path} cannot be written: {reason}.") from None


def _unique(keys: Sequence[Key]) -> list[Key]:
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"Two keys are called {sorted(twice)[0]!r}.", hint="Take another name.")
    return list(keys)
