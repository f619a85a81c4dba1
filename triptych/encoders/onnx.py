"""The default model: two ONNX graphs, a tokenizer and a description in one folder.

Each tower is loaded when it is first asked for, so that a search for words never reads the other.
B batch, T tokens, N texts or pictures, S segments, M embedding width.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from triptych.encoders.base import unit_rows
from triptych.encoders.dual import DualEncoder
from triptych.errors import NotAvailable, NotFound
from triptych.types import Matrix

DEFAULT_FOLDER = Path(__file__).parent / "default"
_BATCH = 32
_STEP = 4  # tokens; alone a text takes 3 % longer, in company 8 to 19 % less
_FILES = ("text.onnx", "image.onnx", "tokenizer.json")


class OnnxModel(DualEncoder):
    """An `EmbeddingModel` from a folder that `triptych.training` wrote."""

    languages: tuple[str, ...]

    def __init__(self, *, folder: Path, description: Mapping[str, Any], threads: int) -> None:
        self.folder, self._threads = folder, threads
        self._description = description
        self._lock = Lock()
        self.name = str(description["name"])
        self.dim = int(description["dim"])
        self.languages = tuple(description["languages"])
        self.picture_size = int(description["image"]["size"])
        self.fingerprint = fingerprint(description)

    @classmethod
    def from_name(cls, argument: str, *, threads: int = 1) -> OnnxModel:
        """Return the model in the folder `argument`; where it is empty, the package's own."""
        return cls.load(Path(argument) if argument else DEFAULT_FOLDER, threads=threads)

    @classmethod
    def load(cls, folder: Path = DEFAULT_FOLDER, *, threads: int = 1) -> OnnxModel:
        """Read the description; the graphs are read on first use.

        Raises NotFound where there is no model, NotAvailable where a file is not what it should be.
        """
        path = folder / "model.json"
        if not path.exists():
            raise NotFound(f"There is no model in {folder}, expected a model.json.")
        description = json.loads(path.read_text(encoding="utf-8"))
        for name, expected in description["files"].items():
            # sizes at once, sums on demand (`verify`): hashing 30 MB would double a cold start
            size = (folder / name).stat().st_size if (folder / name).exists() else -1
            if size != expected["bytes"]:
                raise NotAvailable(
                    f"{name} of model {description['name']!r} has {size} bytes, "
                    f"expected {expected['bytes']}.",
                    hint="Install triptych again.",
                )
        return cls(folder=folder, description=description, threads=threads)

    def verify(self) -> None:
        """Raise NotAvailable if a file's bytes are not those that the fingerprint was made of."""
        for name, expected in self._description["files"].items():
            found = sha256((self.folder / name).read_bytes()).hexdigest()
            if found != expected["sha256"]:
                raise NotAvailable(
                    f"{name} of model {self.name!r} has sum {found[:12]}, "
                    f"expected {expected['sha256'][:12]}.",
                    hint="Install triptych again.",
                )

    def embed_texts(self, texts: Sequence[str]) -> Matrix:
        """Return emb_NM; a text of more than one segment is the mean of its segments."""
        segments, owners = self._segments(texts)
        if not segments:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors_SM = np.empty((len(segments), self.dim), dtype=np.float32)
        for length, chosen in _alike(segments, most=int(self._description["text"]["max_tokens"])):
            ids_BT = np.zeros((len(chosen), length), dtype=np.int64)  # 0 is padding
            for row, index in enumerate(chosen):
                ids_BT[row, : len(segments[index])] = segments[index]
            vectors_SM[chosen] = self._run("text", ids=ids_BT)
        sums_NM = np.zeros((len(texts), self.dim), dtype=np.float32)
        np.add.at(sums_NM, owners, vectors_SM)
        return unit_rows(sums_NM)

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Matrix:
        """Return emb_NM; the whole picture is squashed to the square that the tower sees."""
        out_NM = np.empty((len(pictures), self.dim), dtype=np.float32)
        side = (self.picture_size, self.picture_size)
        for start in range(0, len(pictures), _BATCH):
            chosen = pictures[start : start + _BATCH]
            squashed = [
                np.asarray(picture.resize(side, Image.Resampling.BILINEAR)) for picture in chosen
            ]
            out_NM[start : start + len(chosen)] = self._run("image", pictures=np.stack(squashed))
        return out_NM if not len(pictures) else unit_rows(out_NM)

    def _segments(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        limits = self._description["text"]
        room = int(limits["max_tokens"]) - 2
        segments, owners = [], []
        for owner, encoded in enumerate(self._tokenizer.encode_batch(list(texts))):
            first, *inner, last = encoded.ids
            starts = range(0, max(len(inner), 1), room)[: int(limits["max_segments"])]
            segments += [[first, *inner[start : start + room], last] for start in starts]
            owners += [owner] * len(starts)
        return segments, owners

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def _run(self, tower: str, **inputs: NDArray[Any]) -> Matrix:
        with self._lock:
            session = self._text_session if tower == "text" else self._image_session
        vectors: Matrix = session.run(None, inputs)[0]
        return vectors

    @cached_property
    def _text_session(self) -> Any:
        return _session(self.folder / "text.onnx", threads=self._threads)

    @cached_property
    def _image_session(self) -> Any:
        return _session(self.folder / "image.onnx", threads=self._threads)


def _session(path: Path, *, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # an arena keeps the largest batch it ever saw, many times the weights
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _alike(segments: Sequence[Sequence[int]], *, most: int) -> Iterator[tuple[int, list[int]]]:
    """Batches of indices, each with the length to which its segments are padded.

    That depends on a segment alone, never on its company: the last bit of a sum depends on it.
    """
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, segment in enumerate(segments):
        by_length[min(-(-len(segment) // _STEP) * _STEP, most)].append(index)
    for length, indices in by_length.items():
        for start in range(0, len(indices), _BATCH):
            yield length, indices[start : start + _BATCH]


def fingerprint(description: Mapping[str, Any]) -> str:
    """Hex digest over the files' sums and all that turns an item into a vector."""
    keys = ("dim", "image", "text", "quantisation")
    counted = {key: description[key] for key in keys if key in description}
    counted["files"] = {name: description["files"][name]["sha256"] for name in _FILES}
    return sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
