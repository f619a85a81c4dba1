"""One line of JSON for each request and each event, written in batches."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TextIO, TypeAlias

LogForm: TypeAlias = Literal["json", "text", "off"]

_FLUSH = 0.1  # seconds that a line may wait
_MANY = 256
_TOGETHER = 8  # lines in one write: of less than a page, another worker's never come between them


@lru_cache(4)
def _second(since_1970: int) -> str:
    """A busy server writes thousands of lines in one second."""
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_quoted = lru_cache(4096)(json.dumps)


class AccessLog:
    """Takes a line for each request; what is in it is escaped, so no line can be forged."""

    def __init__(self, form: str, stream: TextIO | None = None) -> None:
        self._form = form
        self._stream = sys.stderr if stream is None else stream
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self.note: Callable[..., None] = self._ignore if form == "off" else self._note

    def flush(self) -> None:
        """Write what waits."""
        self._timer = None
        lines, self._lines = self._lines, []
        for start in range(0, len(lines), _TOGETHER):
            self._stream.write("".join(lines[start : start + _TOGETHER]))
            self._stream.flush()

    def _note(
        self, request_id: str, method: str, path: str, status: int, seconds: float, key: str | None
    ) -> None:
        second, rest = divmod(time.time(), 1)
        now = f"{_second(int(second))}.{int(rest * 1000):03d}+00:00"
        milliseconds = round(seconds * 1000, 3)
        if self._form == "json":
            said = (
                f'{{"time":"{now}","level":"info","event":"request","request_id":"{request_id}",'
                f'"method":{_quoted(method)},"path":{_quoted(path)},"status":{status},'
                f'"ms":{milliseconds},"key":{_quoted(key)}}}\n'
            )
        else:
            said = f"{now} {status} {milliseconds:9.3f} ms {method} {path!r} {request_id}\n"
        self._lines.append(said)
        if len(self._lines) >= _MANY:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH, self.flush)

    def _ignore(self, *_: Any) -> None:
        return None


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.name,
            "message": record.getMessage(),
        }
        if (request_id := getattr(record, "request_id", None)) is not None:
            said["request_id"] = request_id
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def set_up(form: str) -> None:
    """Send the log of the house, and uvicorn's, to standard error in this form."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("triptych: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
