"""Traces by OpenTelemetry; loaded only where they are asked for.

Beside the address all is as OpenTelemetry's own variables say: OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from triptych.api.edge import Asgi, Message, Receive, Scope, Send
from triptych.spans import Span, record

_ATTRIBUTES = {b"x-request-id": "triptych.request_id", b"x-triptych-tier": "triptych.tier"}


class Traced:
    """An ASGI application, each of whose requests is a span; it goes on the caller's trace.

    No path, query or header is written down, but for the route, the method and the request's id.
    """

    def __init__(self, app: Asgi, provider: TracerProvider) -> None:
        self._app, self._provider = app, provider
        self._tracer = provider.get_tracer("triptych")
        self._callers = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            record(self._begin)
            try:
                await self._app(scope, receive, send)
            finally:
                record(None)
                await asyncio.to_thread(self._provider.shutdown)  # sends what was not sent yet
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            "request", context=self._callers.extract(said), kind=trace.SpanKind.SERVER
        ) as span:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, message)
                await send(message)

            span.set_attribute("http.request.method", scope["method"])
            await self._app(scope, receive, noted)
            route = getattr(scope.get("route"), "path", None) or scope.get("triptych.route")
            if route:
                span.update_name(f"{scope['method']} {route}")
                span.set_attribute("http.route", route)

    @contextmanager
    def _begin(self, name: str) -> Iterator[Span]:
        with self._tracer.start_as_current_span(name) as span:
            yield span


def _describe(span: trace.Span, message: Message) -> None:
    status = message["status"]
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR)
    for name, value in message["headers"]:
        if name in _ATTRIBUTES:
            span.set_attribute(_ATTRIBUTES[name], value.decode("latin-1"))


def traced(address: str) -> Callable[[Asgi], Traced]:
    """Return what wraps an application so that its traces go to the collector at `address`.

    Empty, it is where OTEL_EXPORTER_OTLP_ENDPOINT says.
    """
    endpoint = f"{address.rstrip('/')}/v1/traces" if address else None
    named = Resource({SERVICE_NAME: "triptych"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return lambda app: Traced(app, provider)
