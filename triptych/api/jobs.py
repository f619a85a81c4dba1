"""Batch jobs: a body that is on the disk before it is acknowledged, worked off in turns.

<data>/.jobs/<tenant>/<id>.ndjson   the items, gone when the job is over
                      <id>.json     how far it is; a job that was interrupted goes on from there
                      <id>.cancel   somebody wants it to stop
<data>/.jobs/.lock                  held by the one process of this folder that works

So it does not matter which of several processes is asked: all of them know every job.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from triptych.api.config import Limits
from triptych.api.errors import disk_full, internal, overloaded_jobs, shown
from triptych.api.item_writer import Before, Mode, Pace, WriteOutcome
from triptych.errors import CollectionBusy, NotAvailable, NotFound, Overloaded, TriptychError
from triptych.index.disk import FULL, sync_folder
from triptych.index.sqlite.lock import WriterLock
from triptych.retrieval.prepare import FIRST

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{32}")
_KEPT = 100  # jobs of a tenant that are over
_TRIES = 30  # a second apart, while another process holds the collection
_STALE = 3_600.0  # seconds without a byte: far more than a body is given
_LOOK = 0.2  # seconds between two looks at what other processes have taken in
_LONGEST_PAUSE = 30.0  # seconds between two tries to note what the disk does not take

Write = Callable[["Job", Sequence[bytes], Before], WriteOutcome]
"""A job and its next lines to what became of them; `item_writer.Before` is for those it adds."""


@dataclass(slots=True, eq=False)
class Job:
    """One job; only the thread that works changes it."""

    id: str
    tenant: str
    collection: str
    mode: Mode
    total: int
    created: float
    status: str = "queued"
    done: int = 0  # items
    line: int = 0  # lines of the file that are done, blank ones too
    offset: int = 0  # bytes of it
    written: int = 0
    num_errors: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    finished: float | None = None
    error: dict[str, Any] | None = None
    tries: int = 0
    batch: int = FIRST  # lines that come next
    taken: list[str] | None = None  # of their ids those that were there, once they are looked up
    into: str = ""  # what the collection calls itself: another may get its name

    @property
    def is_over(self) -> bool:
        return self.status in ("done", "cancelled", "failed")

    def json(self) -> dict[str, Any]:
        """Return it as a reply shows it."""
        hidden = {"tenant", "line", "offset", "tries", "batch", "into", "taken"}
        said = {name: value for name, value in asdict(self).items() if name not in hidden}
        return said if self.error is not None else {k: v for k, v in said.items() if k != "error"}


class Jobs:
    """All jobs of all tenants; one thread works them off, a batch of each in turn."""

    def __init__(self, *, folder: Path, write: Write, limits: Limits) -> None:
        self._folder, self._write, self._limits = folder, write, limits
        self._lock = WriterLock(folder / ".lock")  # of who works; no tenant is called so
        self._jobs: dict[str, Job] = {}  # that are worked on here
        self._queue: deque[Job] = deque()
        self._unreadable: set[str] = set()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="triptych-jobs", daemon=True)

    @property
    def waiting(self) -> int:
        """How many are not over, of those that are worked on here."""
        return len(self._queue)

    def start(self) -> None:
        """Go on with what was interrupted, unless another process does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch that is under way; the rest goes on after the next start."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._lock.release()

    def check_room(self, tenant: str) -> None:
        """Raise Overloaded where the tenant has too many jobs that are not over."""
        if len(_bodies(self._folder / tenant)) >= self._limits.jobs:
            raise overloaded_jobs(self._limits.jobs)

    def scratch(self, tenant: str) -> Path:
        """Return where the body of a new job is to be written."""
        folder = self._folder / tenant
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{secrets.token_hex(16)}.part"

    def submit(
        self, scratch: Path, tenant: str, collection: str, mode: Mode, total: int, into: str
    ) -> Job:
        """Take over a body that was written; the job is on the disk when this returns.

        Raises DiskFull; nothing is left of it then.
        """
        job = Job(scratch.stem, tenant, collection, mode, total, created=time.time(), into=into)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        body = scratch.rename(scratch.with_suffix(".ndjson"))
        try:
            self._save(job, sync=True)
        except BaseException:
            body.unlink()  # nobody would ever look for it
            raise
        sync_folder(scratch.parent)
        with self._wake:
            self._wake.notify_all()
        return job

    def get(self, tenant: str, id: str) -> Job:
        """Return the job as it is now; raises NotFound, for another tenant's as well."""
        job = None
        if _ID.fullmatch(id):
            job = self._jobs.get(id) or self._read(self._folder / tenant / f"{id}.json")
        if job is None or job.tenant != tenant:
            raise NotFound("There is no such job.", hint="See: GET /v1/jobs")
        return job

    def list(self, tenant: str) -> list[Job]:
        """Return the tenant's jobs, the newest first."""
        paths = (self._folder / tenant).glob("*.json")
        mine = [self._jobs.get(path.stem) or self._read(path) for path in paths]
        known = [job for job in mine if job is not None]
        return sorted(known, key=lambda job: (job.created, job.id), reverse=True)

    def cancel(self, tenant: str, id: str) -> Job:
        """Have a job stop after its batch, and return it."""
        job = self.get(tenant, id)
        if not job.is_over:
            self._path(job).with_suffix(".cancel").touch()
            with self._wake:
                self._wake.notify_all()
        return job

    def _sweep(self) -> None:
        """Delete bodies that came in part when a server was killed; others may be coming in."""
        unnoted = set(self._folder.glob("*/*.ndjson")) - set(_bodies(self._folder, "*/"))
        for path in (*self._folder.glob("*/*.part"), *unnoted):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()

    def _run(self) -> None:
        pause = 0.0  # after a turn that failed
        while True:
            with self._wake:
                if not self._stopping and (pause or not self._queue):
                    self._wake.wait(pause or _LOOK)
                if self._stopping:
                    return
            try:
                self._turn()
                pause = 0.0
            # a disk that takes no notes, mostly: jobs go on when it does
            except Exception:
                pause = min(2 * pause or _LOOK, _LONGEST_PAUSE)
                logger.exception("jobs stand still")

    def _turn(self) -> None:
        """Work off one batch of the next job, if it is this process that works."""
        if not self._leads():
            return
        self._take_in()
        if not self._queue:
            return
        job = self._queue[0]
        if not job.is_over:
            self._step(job)
        if job.is_over:
            self._settle(job)
            self._jobs.pop(job.id, None)
            self._forget_old(job.tenant)
            self._queue.popleft()
        else:
            self._queue.rotate(-1)

    def _leads(self) -> bool:
        """Whether it is this process that works."""
        try:
            self._lock.acquire()
        except (CollectionBusy, NotAvailable):
            return False
        return True

    def _take_in(self) -> None:
        """Queue what was submitted, to whichever process, or was interrupted."""
        for path in _bodies(self._folder, "*/"):
            if path.stem in self._jobs or path.stem in self._unreadable:
                continue
            job = self._read(path.with_suffix(".json"))
            if job is None:
                logger.error("a job's file cannot be read: %s", path.name)
                self._unreadable.add(path.stem)
            elif job.is_over:
                path.unlink(missing_ok=True)
            else:
                job.status = "queued"
                self._jobs[job.id] = job
                self._queue.append(job)

    @staticmethod
    def _read(path: Path) -> Job | None:
        try:
            return Job(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _step(self, job: Job) -> None:
        """Work off one batch; whatever happens is noted in the job."""
        try:
            self._advance(job)
        except CollectionBusy as error:
            job.tries, job.taken = job.tries + 1, None
            if job.tries > _TRIES:
                self._end(job, "failed", error)
            else:
                time.sleep(1)
        except Overloaded:
            job.taken = None
            time.sleep(1)  # requests take the model: nothing of the batch was done, it can wait
        except TriptychError as error:
            self._end(job, "failed", error)
        except Exception:
            logger.exception("job failed", extra={"request_id": job.id})
            self._end(job, "failed", internal(job.id))

    def _advance(self, job: Job) -> None:
        if self._path(job).with_suffix(".cancel").exists():
            self._end(job, "cancelled")
            return
        job.status = "running"
        with self._path(job).with_suffix(".ndjson").open("rb") as file:
            file.seek(job.offset)
            lines = list(islice(file, job.batch))
            offset = file.tell()
        if not lines:
            self._end(job, "done")
            return
        outcome = WriteOutcome(self._limits.errors_listed, job.written, job.num_errors, job.errors)
        pace = Pace(size=job.batch)
        with pace.going(len(lines)):
            outcome.add(self._write(job, lines, partial(self._before, job)))
        job.batch, job.taken = pace.size, None
        job.written, job.num_errors = outcome.written, outcome.num_errors
        job.done += sum(bool(line.strip()) for line in lines)
        job.line, job.offset, job.tries = job.line + len(lines), offset, 0
        self._save(job)

    def _before(self, job: Job, there: set[str]) -> set[str]:
        """Note which ids are taken; where this go was begun before, return those of then.

        Whoever is killed once the items are stored, and not yet the job, finds them when it is done
        again: they are its own.
        """
        if job.taken is None:
            job.taken = sorted(there)
            self._save(job, sync=True)
        return set(job.taken)

    def _end(self, job: Job, status: str, error: TriptychError | None = None) -> None:
        job.error = None if error is None else shown(error, secret=f"{self._folder.parent}/")
        job.finished, job.status, job.taken = time.time(), status, None

    def _settle(self, job: Job) -> None:
        """Put the end of a job on the disk; where that fails it is over all the same."""
        self._save(job)
        for suffix in (".ndjson", ".cancel"):
            self._path(job).with_suffix(suffix).unlink(missing_ok=True)

    def _save(self, job: Job, *, sync: bool = False) -> None:
        path = self._path(job)
        scratch = path.with_suffix(".new")
        try:
            with scratch.open("w", encoding="utf-8") as file:
                json.dump(asdict(job), file)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            scratch.rename(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            raise disk_full() from None

    def _path(self, job: Job) -> Path:
        return self._folder / job.tenant / f"{job.id}.json"

    def _forget_old(self, tenant: str) -> None:
        over = [job for job in self.list(tenant) if job.is_over]
        # by their end: a long one that has just ended is not to be gone before it was looked at
        over.sort(key=lambda job: job.finished or 0.0, reverse=True)
        for job in over[_KEPT:]:
            self._path(job).unlink(missing_ok=True)


def _bodies(folder: Path, below: str = "") -> list[Path]:
    """Return the bodies of jobs that are not over, in one order; none that nobody noted yet."""
    paths = sorted(folder.glob(f"{below}*.ndjson"))
    return [path for path in paths if path.with_suffix(".json").exists()]
