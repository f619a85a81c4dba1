"""What must be found: items that follow from a number and a version, and what each call does to them.

A state is a dict from number to version. All that an item is follows from the two, so a state is
small enough to go through a log, and any mixture of two versions is seen.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from triptych.types import Matrix, Vector

DIM = 8
MOST = 512  # numbers there can be
SMALL, LARGE = 200, 400  # numbers in use: ids come back; a graph needs more than a few hundred
State = dict[int, int]

_WORDS = ("amber", "birch", "coral", "dune", "ember", "fjord", "grove")


def _unit_rows(num: int, seed: int) -> Matrix:
    rows = np.random.default_rng(seed).standard_normal((num, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


_VECTORS = _unit_rows(1 << 16, 7)
QUERIES = _unit_rows(3, 8)


def name(number: int) -> str:
    return f"item-{number}"


def number_of(id: str) -> int:
    return int(id.removeprefix("item-"))


def vector(number: int, version: int, model: int = 0) -> Vector:
    """Return the vector that one of the two models makes of an item."""
    number, version = _seen(number, version)
    made: Vector = np.roll(_VECTORS[(number + MOST * version) % len(_VECTORS)], 3 * model)
    return made


def _seen(number: int, version: int) -> tuple[int, int]:
    """Return what of an item its vector follows from: a quarter of them have one of few."""
    # copies are kept, found and recovered in ways of their own, for a graph links none
    return (number - number % 12, version % 2) if number % 12 < 3 else (number, version)


def alike(number: int, state: State) -> list[int]:
    """Return the items that have the vector of this one, itself among them."""
    seen = _seen(number, state[number])
    return [other for other, version in state.items() if _seen(other, version) == seen]


def text(number: int, version: int) -> str:
    return f"{_WORDS[number % 7]} {_WORDS[version % 7]} number{number} version{version}"


def metadata(number: int, version: int) -> dict[str, Any]:
    return {
        "number": number,
        "version": version,
        "word": _WORDS[(number + version) % 7],
        "even": number % 2 == 0,
        "deep": {"third": number % 3},
    }


def item(number: int, version: int) -> dict[str, Any]:
    """Return what `Collection.add` takes."""
    return {
        "id": name(number),
        "text": text(number, version),
        "metadata": metadata(number, version),
    }


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the collection; `items` are numbers and versions, `numbers` what is deleted."""

    verb: str
    items: tuple[tuple[int, int], ...] = ()
    numbers: tuple[int, ...] = ()

    def after(self, state: State) -> State:
        """Return the state once it is done."""
        if self.verb in ("archive", "copy"):
            return state
        new = {number: at for number, at in state.items() if number not in self.numbers}
        return new | dict(self.items)

    def line(self) -> str:
        return json.dumps([self.verb, self.items, self.numbers], separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> Call:
        verb, items, numbers = json.loads(line)
        return cls(verb, tuple((n, v) for n, v in items), tuple(numbers))


@dataclass(slots=True)
class Log:
    """What was begun and what was acknowledged, outside of the data folder.

    A line is appended before a call and another after it returned: what the process wrote before
    it was killed is there, only the last line may be torn.
    """

    path: Path | None = None
    state: State = field(default_factory=dict)
    open: Call | None = None
    acknowledged: int = 0
    last: str = ""  # the verb of the call that was acknowledged last
    model: int = 0
    archive: State | None = None  # what was exported last
    copy: State | None = None  # what was imported last

    def read(self, lines: Sequence[str] | None = None) -> Log:
        """Follow the lines, those of the file unless given; `open` is what was not acknowledged."""
        if lines is None:
            assert self.path is not None
            lines = self.path.read_text("utf-8").split("\n")[:-1] if self.path.exists() else []
        for line in lines:
            if line == "done":
                assert self.open is not None
                self._follow(self.open)
                self.open = None
                self.acknowledged += 1
            else:
                self.open = Call.from_line(line)
        return self

    def _follow(self, call: Call) -> None:
        self.state, self.last = call.after(self.state), call.verb
        match call.verb:
            case "migrate0" | "migrate1":
                self.model = int(call.verb[-1])
            case "archive":
                self.archive = dict(call.items)
            case "copy":
                self.copy = dict(call.items)
            case "export":
                self.archive = self.state
            case "import":
                self.copy = self.archive

    def models(self) -> list[int]:
        """Return the models that may be searched."""
        verb = self.open.verb if self.open else ""
        return [self.model, int(verb[-1])] if verb.startswith("migrate") else [self.model]

    def archives(self) -> list[State | None]:
        """Return what may have been exported; None: there is no file."""
        is_open = self.open is not None and self.open.verb == "export"
        return [self.archive, self.state] if is_open else [self.archive]

    def copies(self) -> list[State | None]:
        """Return what may have been imported."""
        is_open = self.open is not None and self.open.verb == "import"
        return [self.copy, None, self.archive] if is_open else [self.copy]

    def possible(self) -> list[State]:
        """Return the states that the folder may be in."""
        if self.open is None:
            return [self.state]
        done = self.open.after(self.state)
        return [self.state] if done == self.state else [self.state, done]

    def settle(self, state: State, model: int, archive: State | None, copy: State | None) -> None:
        """Begin anew with what was found."""
        assert self.path is not None
        calls = [Call(f"migrate{model}")]
        calls += [Call("archive", tuple(archive.items()))] if archive is not None else []
        calls += [Call("copy", tuple(copy.items()))] if copy is not None else []
        calls.append(Call("state", tuple(state.items())))
        self.path.write_text("".join(f"{call.line()}\ndone\n" for call in calls))


def state_of(sent: dict[str, int] | None) -> State | None:
    """Return a state that went through JSON."""
    return None if sent is None else {int(number): version for number, version in sent.items()}


def next_call(
    rng: random.Random, state: State, *, verbs: dict[str, int], most: int = SMALL
) -> Call:
    """Return a call that suits `state`."""
    verb = rng.choices(list(verbs), list(verbs.values()))[0]
    free = [number for number in range(most) if number not in state]
    held = sorted(state)
    few = rng.choice((1, 1, 2, 5, 20, 60))
    size = few if len(state) > 0.7 * most else most // 2
    if verb == "add" and free:
        return Call("add", _fresh(rng, rng.sample(free, min(size, len(free)))))
    if verb == "upsert":
        return Call("upsert", _fresh(rng, rng.sample(range(most), size)))
    if verb in ("add", "delete"):
        chosen = rng.sample(held, min(few, len(held)))
        return Call("delete", numbers=tuple(chosen))
    return Call(f"migrate{rng.randrange(2)}" if verb == "migrate" else verb)


def _fresh(rng: random.Random, numbers: list[int]) -> tuple[tuple[int, int], ...]:
    # 128 versions of a number have vectors of their own
    return tuple((number, rng.randrange(128)) for number in numbers)
