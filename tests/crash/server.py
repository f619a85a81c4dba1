"""A process that has imported everything, and forks one child for each job.

A start of Python with FAISS takes half a second, a fork some milliseconds: that is what makes
thousands of kills affordable. A child gets a process group, a time limit and a memory limit of its
own; the group is killed as a whole. One line of JSON asks, one line answers.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from triptych.errors import TriptychError

ROOT = Path(__file__).parents[2]
_IMPORTS = ("tests.crash.jobs", "tests.crash.bugs", "triptych.index.flat", "triptych.index.faiss")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended. One of: a value; the name of an error; a signal; neither, when too slow."""

    value: Any = None
    error: str | None = None  # class of the exception
    typed: bool = False  # whether that is one of ours
    message: str = ""
    signal: int | None = None
    slow: bool = False
    log: list[str] = field(default_factory=list)  # warnings and errors
    seconds: float = 0.0

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL and not self.slow


class ForkServer:
    """The test's side. `run` may be asked by one thread at a time."""

    def __init__(self, *, preload: Path | None = None) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        # a forked child has no threads but its own: libraries must not wait for others
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        assert self.run("ready").value == "ready"

    def run(
        self,
        job: str,
        *,
        kill_after: float | None = None,
        limit: float = 20.0,
        memory: int | None = None,
        **arguments: Any,
    ) -> Outcome:
        """Return how `jobs.<job>(**arguments)` ended in a child of its own.

        It is killed after `kill_after` seconds if still there; `limit` (s, without what it waited
        for a core that others had) and `memory` (bytes of address space) end it as well.
        """
        asked = {
            "job": job, "kill_after": kill_after, "limit": limit, "memory": memory,
            "arguments": arguments,
        }  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(asked, default=str), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the fork server has died"
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage()[:300])


def _serve(asked_file: Any, answer_file: Any, find: Callable[[str], Callable[..., Any]]) -> None:
    gc.collect()
    gc.freeze()
    for line in asked_file:
        asked = json.loads(line)
        started = time.perf_counter()
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            _child(theirs, asked, find)
        os.close(theirs)
        answer = _follow(child, ours, asked)
        answer["seconds"] = time.perf_counter() - started
        print(json.dumps(answer), file=answer_file, flush=True)


def _child(pipe: int, asked: dict[str, Any], find: Callable[[str], Callable[..., Any]]) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if asked["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    answer: dict[str, Any]
    try:
        answer = {"value": find(asked["job"])(**asked["arguments"])}
    except BaseException as error:
        trace = "".join(traceback.format_exception(error)[-4:])
        answer = {
            "error": type(error).__name__,
            "typed": isinstance(error, TriptychError),
            "message": str(error) if isinstance(error, TriptychError) else trace,
        }
    answer["log"] = lines.lines
    body = json.dumps(answer).encode()
    while body:
        body = body[os.write(pipe, body) :]
    os._exit(0)


def _follow(child: int, pipe: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of the pipe, or for the moment of the kill."""
    began = time.perf_counter()
    kill_at = began + (asked["kill_after"] or 1e9)
    limit, queued = asked["limit"], 0.0
    body, ended = bytearray(), False
    while not ended and (left := min(kill_at, began + limit + queued) - time.perf_counter()) > 0:
        if select.select([pipe], [], [], left)[0]:
            part = os.read(pipe, 1 << 20)
            ended = not part
            body += part
        else:
            queued = max(queued, _queued(child))
    slow = not ended and time.perf_counter() < kill_at
    if not ended:
        _kill(child)
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):  # whatever of its group is left
        os.killpg(child, signal.SIGKILL)
    with suppress(ValueError):  # nothing, or half of an answer, where it was killed
        answer: dict[str, Any] = json.loads(body)
        return answer
    return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None, "slow": slow}


def _queued(child: int) -> float:
    """Return for how many seconds the threads of a child could run and had no core."""
    nanoseconds = 0
    for one in Path(f"/proc/{child}/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            nanoseconds += int(one.read_text().split()[1])
    return nanoseconds / 1e9


def _kill(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)


def main() -> None:
    for module in _IMPORTS:
        importlib.import_module(module)
    importlib.import_module("tests.crash.product").adapt()
    jobs = importlib.import_module("tests.crash.jobs")
    jobs.warm_up()
    # what a library prints must not come between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, answers, lambda name: getattr(jobs, name))


if __name__ == "__main__":
    main()
