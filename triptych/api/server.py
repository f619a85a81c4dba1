"""Runs the application under uvicorn, until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from triptych.api import logs
from triptych.api.access import Access
from triptych.api.app import Application, build
from triptych.api.config import Limits, ServerConfig, Times
from triptych.api.exposition import Siblings
from triptych.api.protocol import Connections, guarded
from triptych.api.workers import Worker, Workers
from triptych.errors import InvalidInput, NotAvailable
from triptych.keys import Key
from triptych.registry import Registry
from triptych.settings import Settings

TRACES = Registry("trace", {"otlp": "triptych.api.traces:traced"}, extras={"otlp": "otlp"})


class _Server(uvicorn.Server):
    """Tells the health route before anything else that it stops."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._application.services.health.draining = True
        await super().shutdown(sockets)


class HttpServer:
    """One process that serves.

    Raises InvalidInput for options that do not go together, NotFound or NotAvailable for a model
    that cannot be opened, NotAvailable for a data folder that cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        config: ServerConfig,
        *,
        key_file: Path | None = None,
        keys: list[Key] | None = None,
        worker: Worker | None = None,
    ) -> None:
        if config.follow and config.workers > 1:
            raise InvalidInput(
                f"A server that follows another is one process, got --workers {config.workers}.",
                hint="Leave --workers out, and start several followers.",
            )
        if not config.on_loopback and key_file is None and not keys:
            raise InvalidInput(
                f"Without a key the server only listens on this machine (127.0.0.1), "
                f"got --host {config.host}.",
                hint="Make one: triptych keys add keys.json --name me --role admin; "
                "then: triptych serve --key-file keys.json",
            )
        _check_folder(settings.data, read_only=config.read_only)
        if config.otlp is None and settings.is_traced:
            config = replace(config, otlp="")
        self.traced = None if config.otlp is None else TRACES.resolve("otlp")(config.otlp)
        cells = None if worker is None else worker.cells
        access = Access(file=key_file, keys=keys or [], rate=config.rate, cells=cells)
        self.config = config
        self.application = self.build(settings, config, access)
        for name in (config.model, *config.also_models):
            # now: a server that listens and is never ready tells nobody that a name is misspelt
            self.application.services.catalog.model(name)
        if worker is not None:
            self.application.services.metrics.siblings = Siblings(worker.folder, worker.number)
            self.application.services.catalog.has_siblings = True

    def build(self, settings: Settings, config: ServerConfig, access: Access) -> Application:
        """Return what is served."""
        return build(settings, config, access)

    def bind(self, port: int | None = None) -> socket.socket:
        """Return the listening socket, one of several where there are several workers.

        Raises NotAvailable where the address is taken.
        """
        host, port = self.config.host.strip("[]"), self.config.port if port is None else port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.config.workers > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen(self.config.connections)
        except OSError as error:
            listener.close()
            raise NotAvailable(
                f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Try another --port."
            ) from None
        return listener

    def run(self, listener: socket.socket) -> None:
        """Serve on the socket until SIGTERM or SIGINT."""
        logs.set_up(self.config.log)
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn raises again what it was stopped by: the end that was asked for is no failure
            signal.signal(number, lambda *_: None)
        _Server(self.uvicorn_config(), self.application).run(sockets=[listener])

    def uvicorn_config(self) -> uvicorn.Config:
        """Return what uvicorn is told."""
        config = self.config
        connections = Connections(
            most=config.connections, most_per_address=config.connections_per_address
        )
        self.application.services.metrics.gauge(
            "triptych_connections", "Open connections", lambda: len(connections)
        )
        app = self.application.asgi if self.traced is None else self.traced(self.application.asgi)
        return uvicorn.Config(
            app,
            loop="uvloop",
            http=guarded(limits=config.limits, times=config.times, connections=connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # no header is believed
            server_header=False,
            timeout_keep_alive=int(config.times.keep_alive),
            timeout_graceful_shutdown=int(config.times.drain),
        )


def _check_folder(data: Path, *, read_only: bool) -> None:
    """Make the data folder; raises NotAvailable where it cannot be used."""
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem: str | None = f"{data} cannot be made: {error.strerror}."
    else:
        needed = os.R_OK | os.X_OK | (0 if read_only else os.W_OK)
        problem = None if os.access(data, needed) else f"{data} may not be written to, or read."
    if problem is not None:
        raise NotAvailable(
            problem,
            hint=f"Give user {os.geteuid()} the folder, or another one: --data, TRIPTYCH_DATA.",
        )


class Given(NamedTuple):
    """What every worker is told alike."""

    settings: Settings
    config: ServerConfig
    key_file: Path | None
    keys: list[Key]


def start(settings: Settings, given: Mapping[str, Any], keys: list[Key]) -> None:
    """Serve as the options say, until the process is told to stop."""
    options = dict(given)
    key_file = options.pop("key_file", None)
    said = Given(settings, configured(settings, options), key_file, keys)
    server = HttpServer(settings, said.config, key_file=key_file, keys=keys)
    if said.config.workers == 1:
        serve(server, str(settings.data))
        return
    listener = server.bind()
    port = listener.getsockname()[1]
    sockets = [listener, *(server.bind(port) for _ in range(said.config.workers - 1))]
    del server  # its models: each worker has its own
    _say(f"{settings.data} by {len(sockets)} workers", listener)
    logs.set_up(said.config.log)
    Workers(work, said, sockets).run(drain=said.config.times.drain)


def work(worker: Worker, listener: socket.socket, said: Given) -> None:
    """Serve as one of several workers."""
    server = HttpServer(
        said.settings, said.config, key_file=said.key_file, keys=said.keys, worker=worker
    )
    server.run(listener)


def serve(server: HttpServer, what: str) -> None:
    """Listen, say where, and serve until told to stop."""
    listener = server.bind()
    _say(what, listener)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn sends itself the signal once more when it has drained: that is no failure
        signal.signal(number, lambda *_: None)
    server.run(listener)


def _say(what: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"triptych: serving {what} on http://{shown}:{port}\n")


def configured(settings: Settings, options: dict[str, Any]) -> ServerConfig:
    """Return the configuration that the options of the command line spell."""
    limits, times = Limits(), Times()
    if (body := options.pop("max_body", None)) is not None:
        limits = replace(limits, body_bytes=body)
    if (answer := options.pop("request_timeout", None)) is not None:
        times = replace(times, answer=answer)
    if (drain := options.pop("drain_timeout", None)) is not None:
        times = replace(times, drain=drain)
    plural = {
        "also_model": "also_models",
        "allow_host": "allow_hosts",
        "allow_origin": "allow_origins",
        "allow_url": "allow_urls",
    }
    named = {plural.get(name, name): value for name, value in options.items()}
    known: dict[str, Any] = {"model": settings.model, **named}
    return ServerConfig(**known, limits=limits, times=times)
