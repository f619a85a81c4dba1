"""Weights that several graphs hold, written once, in a file beside them.

The experts and the picture's head serve a picture alone and a picture with its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper

FILE = "shared.bin"
_LEAST = 4096  # bytes below which a copy costs less than a reference
_PAGE = 4096  # where each begins, so that it can be mapped into memory


def save(models: Mapping[str, onnx.ModelProto], folder: Path) -> None:
    """Write each model as `<name>.onnx`, and what two of them share as `shared.bin`."""
    seen: Counter[bytes] = Counter()
    for model in models.values():
        seen.update({_key(tensor) for tensor in model.graph.initializer if _is_large(tensor)})
    places: dict[bytes, tuple[int, int]] = {}
    with (folder / FILE).open("wb") as file:
        for model in models.values():
            for tensor in model.graph.initializer:
                if not _is_large(tensor) or seen[_key(tensor)] < 2:
                    continue
                key = _key(tensor)
                if key not in places:
                    file.write(b"\0" * (-file.tell() % _PAGE))
                    places[key] = (file.tell(), len(tensor.raw_data))
                    file.write(tensor.raw_data)
                offset, length = places[key]
                external_data_helper.set_external_data(tensor, FILE, offset, length)
                tensor.ClearField("raw_data")
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def _is_large(tensor: TensorProto) -> bool:
    return len(tensor.raw_data) >= _LEAST


def _key(tensor: TensorProto) -> bytes:
    said = f"{tensor.data_type}:{list(tensor.dims)}:".encode()
    return sha256(said + tensor.raw_data).digest()
