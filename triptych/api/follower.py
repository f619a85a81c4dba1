"""Copies the collections of another server, again and again, so that this one answers for it.

Each state of a collection has a name. Where the other server's is another than that of the copy
here, what has changed since is fetched, checked against its hashes, and written in one transaction.
Where that cannot be told, all of it is fetched, built beside the old copy, and put in its place.
Searches go on meanwhile. What is behind is behind by whole states, never by half of one.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from triptych.api.catalog import Catalog
from triptych.errors import InvalidInput, TriptychError
from triptych.keys import check_sendable
from triptych.retrieval.folder import open_store
from triptych.retrieval.library import Library
from triptych.retrieval.maintenance.increments import Increment, Mark, apply_increment
from triptych.retrieval.maintenance.portable import import_collection

logger = logging.getLogger(__name__)

GENERATION = "X-Triptych-Generation"
"""The header that names the state in an archive; what follows may be newer."""

_NOTE = "followed.json"  # in the folder of a copy: the state that it is of
_HEAD = 1 << 20  # bytes before an archive, at most
_STALL = 60.0  # seconds without a byte
_AGAIN = 30.0  # seconds, the longest wait after a failure
_ODD = (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowConfig:
    """Whom to follow, with a key that may read, and how often to look."""

    url: str
    key: str = field(default="", repr=False)
    every: float = 2.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InvalidInput(f"Got --follow {self.url!r}, expected http://... or https://...")
        if self.key:
            check_sendable(self.key)  # now: who finds out later shows it in the log


class Follower:
    """One thread that keeps the copies up to date, from `start` to `stop`."""

    def __init__(self, config: FollowConfig, *, catalog: Catalog) -> None:
        self._config, self._catalog = config, catalog
        # nobody but the one that is followed gets to see the key
        self._opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
            self._opener.add_handler(handler())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._as_of = time.monotonic()  # everything that was there then is here
        self._has_all = False

    def lag(self) -> float:
        """Return the seconds since the other server held nothing that is not here.

        They grow while it cannot be reached: then nobody knows what it holds.
        """
        return time.monotonic() - self._as_of

    def has_all(self) -> bool:
        """Whether all collections were here once, so that there is something to answer with."""
        return self._has_all

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more; a copy that is half made is thrown away at the next start."""
        self._stopping.set()
        self._thread.join(_AGAIN)

    def look(self) -> None:
        """Bring everything here up to date; raises what keeps it from that."""
        began = time.monotonic()
        said = self._json("/v1/generations")
        tenant, wanted = str(said["tenant"]), dict(said["generations"])
        library = self._catalog.settings.library(tenant)
        failed: Exception | None = None  # one that cannot be copied does not keep back the others
        for name, generation in wanted.items():
            noted = _noted(library.path(name))
            if noted is None or noted.mark.generation != generation:
                try:
                    self._follow(library, tenant, name, noted)
                except (TriptychError, *_ODD) as error:
                    failed = error
        for name in set(library.list()) - set(wanted):
            self._catalog.drop(tenant, name)
        if failed is not None:
            raise failed
        self._as_of, self._has_all = began, True

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            try:
                self.look()
                wait = self._config.every
            except (TriptychError, *_ODD) as error:
                wait = min(max(2 * wait, self._config.every), _AGAIN)
                logger.warning("%s cannot be followed: %s", self._config.url, error)

    def _follow(self, library: Library, tenant: str, name: str, noted: _Noted | None) -> None:
        """Fetch what is new in one collection, or all of it, and have it here."""
        library.folder.mkdir(parents=True, exist_ok=True)
        archive = library.folder / f".{name}.following"
        try:
            if noted is not None and self._has_changed(tenant, name, noted):
                noted = None  # whoever wrote to the copy, it is no copy any more
            told = self._fetch(name, noted, archive)
            if told.gone is None:
                self._replace(library, tenant, name, archive, told)
            else:
                self._apply(library.path(name), tenant, name, archive, told)
        finally:
            archive.unlink(missing_ok=True)

    def _has_changed(self, tenant: str, name: str, noted: _Noted) -> bool:
        with self._catalog.using(tenant, name) as collection:
            return collection.copying.sequence != noted.own

    def _apply(self, folder: Path, tenant: str, name: str, archive: Path, told: Increment) -> None:
        """Write the changes to the copy that is here, or forget what it is a copy of."""
        assert told.gone is not None
        try:
            with self._catalog.using(tenant, name) as collection:
                apply_increment(collection, archive, told.gone, told.num_items)
                own = collection.copying.sequence
        except TriptychError:
            (folder / _NOTE).unlink(missing_ok=True)  # all of it is fetched next time
            raise
        _note(folder, _Noted(told.mark, own))

    def _replace(
        self, library: Library, tenant: str, name: str, archive: Path, told: Increment
    ) -> None:
        """Put the whole collection in the place of the copy that is here."""
        beside = library.folder / f".{name}.next"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            import_collection(archive, beside)
            store = open_store(beside)
            own = store.sequence
            store.close()
            _note(beside, _Noted(told.mark, own))
            self._catalog.replace(tenant, name, beside)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _fetch(self, name: str, noted: _Noted | None, to: Path) -> Increment:
        since = f"?since={quote(str(noted.mark))}" if noted is not None else ""
        path = f"/v1/collections/{quote(name)}/changes{since}"
        with self._open(path) as reply, to.open("wb") as file:
            said = json.loads(reply.readline(_HEAD))
            shutil.copyfileobj(reply, file, 1 << 20)
        gone = None if said["gone"] is None else [int(place) for place in said["gone"]]
        if gone is not None and noted is None:
            raise ValueError("it sends changes of a state that was not named")
        return Increment(Mark.of(said["mark"]), int(said["count"]), gone)

    def _json(self, path: str) -> Any:
        with self._open(path) as reply:
            return json.loads(reply.read())

    def _open(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self._config.key}"} if self._config.key else {}
        url = self._config.url.rstrip("/") + path  # http or https, see FollowConfig
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        reply = self._opener.open(request, timeout=_STALL)
        if reply is None or reply.status != 200:
            status = "nothing" if reply is None else reply.status
            raise OSError(f"it answers {status} to GET {path}")
        return reply


class _Noted(NamedTuple):
    """What a copy is a copy of, and how often it had changed itself when it was that."""

    mark: Mark
    own: int


def _note(folder: Path, noted: _Noted) -> None:
    scratch = folder / f"{_NOTE}.next"
    scratch.write_text(json.dumps({"mark": str(noted.mark), "own": noted.own}))
    scratch.replace(folder / _NOTE)


def _noted(folder: Path) -> _Noted | None:
    """Return what the copy in a folder is of, None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError, InvalidInput):
        said = json.loads((folder / _NOTE).read_text())
        return _Noted(Mark.of(said["mark"]), int(said["own"]))
    return None
