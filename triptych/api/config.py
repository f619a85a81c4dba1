"""What a server is told at its start; everything is on by default."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from triptych.encoders.pictures.picture import PictureLimits
from triptych.retrieval.answering.upkeep import DEFAULT as UPKEEP
from triptych.retrieval.answering.upkeep import UpkeepConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a stranger's request is read; docs/limits.md shows them."""

    head_bytes: int = 32 * 2**10  # request line and headers
    body_bytes: int = 32 * 2**20  # of a body that is no NDJSON
    small_body_bytes: int = 1 * 2**20  # of a route that takes neither pictures nor items
    stream_bytes: int = 8 * 2**30  # of an NDJSON body
    unread_bytes: int = 32 * 2**20  # of a body that still comes when its answer is given
    line_bytes: int = 16 * 2**20  # of one line in it
    json_depth: int = 40
    items: int = 10_000  # in one body that is no NDJSON
    ids: int = 10_000
    parts: int = 32  # of a query
    form_parts: int = 1_000  # of a multipart body
    field_bytes: int = 1 * 2**20  # of a part that is no file
    inputs: int = 2_048  # of /v1/embeddings
    documents: int = 1_000  # of /v1/rerank
    pictures: int = 64  # in one body that is no list of items
    text_chars: int = 1_000_000
    hits: int = 10_000  # limit and offset together
    dim: int = 65_536
    fields: int = 32  # of facets
    errors_listed: int = 1_000
    jobs: int = 32  # of a tenant, that are not over
    picture: PictureLimits = field(
        default_factory=lambda: PictureLimits(
            max_bytes=10 * 2**20, max_pixels=25_000_000, max_memory=200 * 2**20, max_seconds=2.0
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds; all of them by a clock that nobody can set."""

    head: float = 10.0  # from the first byte of a request, or from connecting, to its last header
    body: float = 30.0  # for the whole body, or for the client to read an answer, and beside it ...
    bytes_per_second: int = 64 * 2**10  # ... a second more for each of these
    stall: float = 10.0  # without a byte of the body, or with a client that reads none
    keep_alive: float = 15.0
    answer: float = 60.0
    drain: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how to serve; `limits` and `times` bound what a caller may take."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1  # processes: each has the pool, the queue and the connections below
    model: str = "default"
    also_models: tuple[str, ...] = ()
    # requests worked on at once: most of them wait for the model, and those share its calls
    pool: int = 32
    queue: int = 256  # requests that wait
    connections: int = 2_048
    connections_per_address: int = 1_024
    rate: float = 0.0  # requests a second of a key; 0: no limit
    read_only: bool = False
    follow: str = ""  # the address of the server whose collections are copied and served
    follow_key: str = field(default="", repr=False)
    follow_every: float = 2.0  # seconds between two looks
    discard_pictures: bool = False  # keep thumbnails only, not the bytes that were sent
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    allow_urls: tuple[str, ...] = ()
    near: float | None = None  # cosine of an earlier query whose answer will do, unless asked
    upkeep: UpkeepConfig = UPKEEP
    otlp: str | None = None  # where traces go; empty: where OpenTelemetry's variables say
    log: str = "json"  # or "text", "off"
    limits: Limits = field(default_factory=Limits)
    times: Times = field(default_factory=Times)

    @property
    def on_loopback(self) -> bool:
        """Whether nobody outside of this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
