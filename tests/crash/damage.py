"""One thing in a data folder broken, as disks, copies and people do it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

_PAGE = 4096
_NOT_DATA = ("lock", "reserve")  # names that hold nothing


def flip_a_bit(folder: Path, other: Path, rng: random.Random) -> str:
    path = _file(folder, rng)
    body = bytearray(path.read_bytes())
    at = rng.randrange(len(body))
    body[at] ^= 1 << rng.randrange(8)
    path.write_bytes(body)
    return f"bit of byte {at} of {_shown(path, folder)}"


def truncate(folder: Path, other: Path, rng: random.Random) -> str:
    path = _file(folder, rng)
    body = path.read_bytes()
    # at a page's border too, where nothing looks torn
    at = rng.randrange(len(body))
    at -= rng.choice((0, at % _PAGE, at))
    path.write_bytes(body[:at])
    return f"{_shown(path, folder)} cut to {at} of {len(body)} bytes"


def zero_a_page(folder: Path, other: Path, rng: random.Random) -> str:
    path = _file(folder, rng)
    body = bytearray(path.read_bytes())
    at = rng.randrange((len(body) - 1) // _PAGE + 1) * _PAGE
    end = min(at + _PAGE, len(body))
    body[at:end] = bytes(end - at)
    path.write_bytes(body)
    return f"page at {at} of {_shown(path, folder)} zeroed"


def garble(folder: Path, other: Path, rng: random.Random) -> str:
    path = _file(folder, rng)
    body = bytearray(path.read_bytes())
    at = rng.randrange(len(body))
    noise = rng.randbytes(min(rng.choice((4, 64, 512)), len(body) - at))
    body[at : at + len(noise)] = noise
    path.write_bytes(body)
    return f"{len(noise)} bytes at {at} of {_shown(path, folder)} garbled"


def swap_two_files(folder: Path, other: Path, rng: random.Random) -> str:
    one, two = rng.sample(_files(folder), 2)
    scratch = folder / "scratch"
    one.rename(scratch)
    two.rename(one)
    scratch.rename(two)
    return f"{_shown(one, folder)} and {_shown(two, folder)} swapped"


def take_from_another(folder: Path, other: Path, rng: random.Random) -> str:
    """A file comes from another collection, under our name or its own."""
    theirs = rng.choice(_files(other))
    ours = folder / theirs.relative_to(other)
    alike = [path for path in _files(folder) if path.suffix == theirs.suffix]
    if not ours.exists() and alike:
        ours = rng.choice(alike)
    ours.parent.mkdir(exist_ok=True)
    shutil.copyfile(theirs, ours)
    return f"{_shown(ours, folder)} from another collection"


def remove(folder: Path, other: Path, rng: random.Random) -> str:
    path = _file(folder, rng)
    path.unlink()
    return f"{_shown(path, folder)} is missing"


def stray(folder: Path, other: Path, rng: random.Random) -> str:
    """A file that does not belong there, with a name that looks as if it did."""
    like = rng.choice(_files(folder))
    ending = rng.choice((".tmp", "-journal", "-wal", ".bak", "~", ""))
    path = like.with_name(f"{like.name}{ending}" if ending else "stray")
    if path.exists():
        path = like.with_name(f"{like.name}.tmp")
    path.write_bytes(rng.choice((b"", rng.randbytes(700), like.read_bytes())))
    return f"stray {_shown(path, folder)}, {path.stat().st_size} bytes"


DAMAGES: tuple[Callable[[Path, Path, random.Random], str], ...] = (
    flip_a_bit, flip_a_bit, flip_a_bit, garble, truncate, zero_a_page, swap_two_files,
    take_from_another, remove, stray,
)  # fmt: skip


def _files(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in paths if path.name not in _NOT_DATA]


def _file(folder: Path, rng: random.Random) -> Path:
    """Each file is as likely as any other, however large."""
    return rng.choice(_files(folder))


def _shown(path: Path, folder: Path) -> str:
    # a name made of random hex says no more than its ending
    name = path.name if len(path.stem) < 14 else f"*{path.suffix}"
    return str(path.relative_to(folder).with_name(name))
