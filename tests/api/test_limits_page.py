"""The table of limits in docs/limits.md says what the server's defaults are."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.api.config import ServerConfig

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
SERVED = ServerConfig()
LIMITS, TIMES, PICTURE = SERVED.limits, SERVED.times, SERVED.limits.picture
_KIB, _MIB, _GIB = 2**10, 2**20, 2**30

ROWS = {
    "request line and headers": f"{LIMITS.head_bytes // _KIB} KiB; {TIMES.head:.0f} s",
    "a body": f"{LIMITS.body_bytes // _MIB} MiB; {LIMITS.small_body_bytes // _MIB} MiB where ",
    "a body of lines (NDJSON)": f"{LIMITS.stream_bytes // _GIB} GiB, "
    f"{LIMITS.line_bytes // _MIB} MiB a line",
    "what frames a body: a chunk's extensions, the trailers": f"{LIMITS.head_bytes // _KIB} KiB ",
    "a body whose answer is given before it has come": f"{LIMITS.unread_bytes // _MIB} MiB more",
    "the time of a body": f"{TIMES.body:.0f} s and a second more for each "
    f"{TIMES.bytes_per_second // _KIB} KiB, never {TIMES.stall:.0f} s without",
    "an answer": f"{TIMES.answer:.0f} s; to read it {TIMES.body:.0f} s and a second more for each "
    f"{TIMES.bytes_per_second // _KIB} KiB, never {TIMES.stall:.0f} s without",
    "connections": f"{SERVED.connections:,}, of one address {SERVED.connections_per_address:,}",
    "requests worked on, and waiting": f"{SERVED.pool}, and {SERVED.queue}",
    "JSON": f"{LIMITS.json_depth} levels",
    "items, ids in a body": f"{LIMITS.items:,}",
    "a form": f"{LIMITS.form_parts:,} files, {LIMITS.form_parts:,} fields of "
    f"{LIMITS.field_bytes // _MIB} MiB",
    "parts of a query": f"{LIMITS.parts}",
    "inputs of embeddings; documents of rerank; pictures among them": f"{LIMITS.inputs:,}; "
    f"{LIMITS.documents:,}; {LIMITS.pictures}",
    "a text": f"{LIMITS.text_chars:,} characters",
    "hits, offset included": f"{LIMITS.hits:,}",
    "a picture": f"{PICTURE.max_bytes // _MIB} MiB, {PICTURE.max_pixels // 10**6} megapixels, "
    f"about {(PICTURE.max_memory or 0) // _MIB} MiB to decode",
    "jobs of a tenant that are not over": f"{LIMITS.jobs}",
}


@pytest.mark.parametrize("what", ROWS)
def test_a_limit_is_the_one_that_the_page_names(what: str) -> None:
    over_http = PAGE.partition("Over HTTP besides")[2]
    rows = [line for line in over_http.splitlines() if line.startswith(f"| {what} |")]
    assert len(rows) == 1
    assert rows[0].startswith(f"| {what} | {ROWS[what]}")
