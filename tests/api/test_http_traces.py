"""Traces: a span for each request and each stage, of nobody's words; nothing at all when off."""

from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.api.live import Live, serving
from tests.redis_server import RedisServer
from triptych import spans
from triptych.api.traces import Traced
from triptych.cache.config import CacheConfig
from triptych.settings import Settings

SEARCH = "/v1/collections/photos/search"
CALLER = "0af7651916cd43dd8448eb211c80319c"


def names(found: list[ReadableSpan], parent: ReadableSpan) -> set[str]:
    """Return the names of the spans inside another, at any depth."""
    inner = [one for one in found if one.parent and one.parent.span_id == parent.context.span_id]
    return {one.name for one in inner}.union(*(names(found, one) for one in inner), ())


def test_a_request_is_a_span_with_its_stages_inside(data: Path, redis_server: RedisServer) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    cache = CacheConfig(redis_url=redis_server.url)
    with serving(data, cache=cache, wrap=lambda app: Traced(app, provider)) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        live.json("PUT", "/v1/collections/photos/items", {"items": [{"id": "a", "text": "dog"}]})
        caller = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
        asked = {"query": "secret words", "hybrid": True}
        for _ in range(2):
            live.json("POST", SEARCH, asked, headers=caller)
        live.json("POST", "/v1/embeddings", {"input": "secret words, too"})
        live.json("GET", "/livez")
    found = list(exporter.get_finished_spans())  # a span may end after its reply has come
    requests = sorted(
        (one for one in found if one.kind.name == "SERVER"), key=lambda one: one.start_time
    )
    _, _, first, known, embeddings, livez = requests
    assert first.name == known.name == "POST /v1/collections/{name}/search"
    assert {"search", "embed", "index", "fetch", "words"} <= names(found, first)
    assert {"cache memory get", "cache redis get", "cache redis put"} <= names(found, first)
    assert names(found, known) == set(), "it was known: nothing was done"
    assert "embed" in names(found, embeddings)
    assert livez.name == "GET /livez"
    assert f"{first.context.trace_id:032x}" == CALLER
    assert first.attributes["triptych.tier"] == "index"
    assert known.attributes["triptych.tier"] == "process"
    assert first.attributes["http.response.status_code"] == 200
    assert "secret" not in "".join(one.to_json() for one in found)


def test_off_nothing_is_begun(live: Live) -> None:
    assert spans.span("a") is spans.span("b")
    assert live.server.traced is None


def test_the_usual_variables_switch_it_on(data: Path) -> None:
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "TRIPTYCH_DATA": str(data)}
    assert Settings.from_env(said).is_traced
    assert not Settings.from_env({"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}).is_traced
