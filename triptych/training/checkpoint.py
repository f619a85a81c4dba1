"""Checkpoints: tensors in one file, and a manifest that says what they are and how both hash.

The tensors are written first, the manifest is put in place last, so a checkpoint is whole or not
there. Nothing in it is code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from triptych.errors import InvalidInput, NotAvailable

MANIFEST = "checkpoint.json"
_TOLD = {"step", "file", "bytes", "sha256", "config", "numbers"}
_AGAIN = "Remove the folder's checkpoint to start that stage again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a run goes on from."""

    step: int
    config: Mapping[str, Any]  # of the run that wrote it, as JSON has it
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]  # state that is plain numbers


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`."""
    path = folder / f"checkpoint-{checkpoint.step}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, path)
    manifest = {
        "step": checkpoint.step,
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": _hash(path),
        "config": checkpoint.config,
        "numbers": checkpoint.numbers,
    }
    manifest["sum"] = _sum(manifest)
    new = folder / f"{MANIFEST}.new"
    new.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(new, folder / MANIFEST)
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != path:
            old.unlink()


def load(folder: Path, *, config: Mapping[str, Any] | None = None) -> Checkpoint | None:
    """Return the checkpoint in `folder`, None where there is none.

    Raises NotAvailable for one that is truncated or changed, InvalidInput for one that another
    `config` wrote, naming the fields that differ.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        path = folder / str(manifest["file"])
        size, sum_, found = int(manifest["bytes"]), str(manifest["sha256"]), manifest["config"]
        step, numbers = int(manifest["step"]), manifest["numbers"]
        _check_sum(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise NotAvailable(
            f"The manifest {folder / MANIFEST} cannot be read ({error!r}).", hint=_AGAIN
        ) from error
    _check_bytes(path, size=size, sum_=sum_)
    if config is not None:
        _check_config(path, found=found, expected=config)
    return Checkpoint(step=step, config=found, tensors=load_file(path), numbers=numbers)


def _sum(manifest: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(manifest))  # numbers as keys are words there
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _check_sum(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError unless the manifest is as it was written."""
    told = {name: value for name, value in manifest.items() if name != "sum"}
    if told.keys() != _TOLD or manifest["sum"] != _sum(told):
        raise ValueError("its bytes have changed")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _check_bytes(path: Path, *, size: int, sum_: str) -> None:
    found = path.stat().st_size if path.exists() else -1
    if found != size:
        what = "is missing" if found < 0 else f"has {found} bytes"
        raise NotAvailable(f"Checkpoint {path} {what}, expected {size} bytes.", hint=_AGAIN)
    if (digest := _hash(path)) != sum_:
        raise NotAvailable(
            f"Checkpoint {path} has the sum {digest[:12]}, expected {sum_[:12]}: "
            "its bytes have changed.",
            hint=_AGAIN,
        )


def _check_config(path: Path, *, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(expected))  # tuples are lists there
    names = sorted(name for name in {*found, *plain} if found.get(name) != plain.get(name))
    if names:
        said = "; ".join(
            f"{name}: {found.get(name)!r}, expected {plain.get(name)!r}" for name in names[:3]
        )
        raise InvalidInput(
            f"Checkpoint {path} was written by another configuration ({said}).",
            hint="Give this run another folder, or remove the checkpoint there.",
        )
