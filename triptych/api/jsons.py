"""JSON of replies."""

from __future__ import annotations

import json
from typing import Any


def dumps(value: Any) -> bytes:
    """Return compact JSON; half a surrogate pair, which names of files may hold, is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
