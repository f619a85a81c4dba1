"""The default model: ONNX graphs, a tokenizer and a description in one folder.

Each graph is loaded when it is first asked for, so that a search for words never reads the others.
B batch, T tokens, P patches, N texts or pictures, S segments, C channels, D W widths of states,
M embedding width, K candidates.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.encoders.base import unit_rows
from triptych.encoders.dual import DualStates
from triptych.encoders.expert_load import ExpertLoad
from triptych.encoders.pictures.look import Look
from triptych.encoders.places import left_over
from triptych.encoders.runtime import open_session
from triptych.encoders.segments import Segment, mean_of_segments
from triptych.encoders.text_reader import PACKED, TextReader, read_tokenizer
from triptych.errors import NotAvailable, NotFound
from triptych.types import Cube, Matrix, Vector

DEFAULT_FOLDER = Path(__file__).parent / "default"
_PAIRS = 32  # scored at once
_PICTURES = 16  # the maps of more leave the processor's caches: 15 % slower
_DECIMALS = 4  # of a score, which is some units large


class OnnxModel(DualStates):
    """An `EmbeddingModel` from a folder that `triptych.training` wrote.

    With states of tokens, and scores of pairs, where it was trained to give them.
    """

    languages: tuple[str, ...]

    def __init__(self, *, folder: Path, description: Mapping[str, Any], threads: int) -> None:
        self.folder, self._threads = folder, threads
        self._description = description
        self._lock = Lock()
        self._sessions: dict[str, Any] = {}
        self.name = str(description["name"])
        self.dim = int(description["dim"])
        self.languages = tuple(description["languages"])
        self.picture_size = int(description["image"]["size"])
        self._looks = [Look(**look) for look in description["image"].get("looks", [{}])]
        self._is_fused = "both.onnx" in _files(description)
        self._patches = int(description.get("patches", 0))
        self._place_states = str(description.get("place_states", "states"))
        self.fingerprint = fingerprint(description)
        experts = description.get("experts")  # a model of an earlier form does not tell
        self._load = None if experts is None else ExpertLoad(int(experts))

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
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            sizes = {name: int(file["bytes"]) for name, file in _files(description).items()}
            model = cls(folder=folder, description=description, threads=threads)
        # as JSON, or as a description
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotAvailable(
                f"The description {path} cannot be read ({error}).",
                hint=_mend(folder),
            ) from error
        for name, expected in sizes.items():
            # sizes at once, sums on demand (`verify`): hashing 30 MB would double a cold start
            size = (folder / name).stat().st_size if (folder / name).exists() else -1
            if size != expected:
                raise NotAvailable(
                    f"{name} of model {model.name!r} has {size} bytes, expected {expected}.",
                    hint=_mend(folder),
                )
        return model

    def looking(self, looks: Sequence[Look], *, name: str) -> OnnxModel:
        """Return another model, of the same files, that sees every picture so many times."""
        image = self._description["image"] | {"looks": [asdict(look) for look in looks]}
        described = {**self._description, "name": name, "image": image}
        return OnnxModel(folder=self.folder, description=described, threads=self._threads)

    def save(self, folder: Path) -> None:
        """Write all that `load` needs into `folder`, which does not exist yet; raises OSError."""
        shutil.copytree(self.folder, folder)
        described = json.dumps(self._description, indent=1) + "\n"
        (folder / "model.json").write_text(described, encoding="utf-8")

    def verify(self) -> None:
        """Raise NotAvailable if a file's bytes are not those that the fingerprint was made of."""
        for name, expected in _files(self._description).items():
            found = sha256((self.folder / name).read_bytes()).hexdigest()
            if found != expected["sha256"]:
                raise NotAvailable(
                    f"{name} of model {self.name!r} has sum {found[:12]}, "
                    f"expected {expected['sha256'][:12]}.",
                    hint=_mend(self.folder),
                )

    def embed_texts(self, texts: Sequence[str]) -> Matrix:
        """Return emb_NM; a text of more than one segment is the mean of its segments."""
        segments, owners = self._reader.segments(texts)
        if not segments:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors_SM = np.empty((len(segments), self.dim), dtype=np.float32)
        for chosen, ids_BT in self._reader.batches(segments):
            num_tokens = int(np.count_nonzero(ids_BT))
            vectors_SM[chosen] = self._vectors("text", ids=ids_BT, num_tokens=num_tokens)
        return mean_of_segments(vectors_SM, owners, len(texts))

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Matrix:
        """Return emb_NM; what is looked at is squashed to the square that the tower sees.

        Of more than one look it is the mean.
        """
        sums_NM = np.zeros((len(pictures), self.dim), dtype=np.float32)
        for look in self._looks:
            for start, some in self._squares(pictures, look):
                num_tokens = len(some) * self._patches
                seen_BM = self._vectors("image", pictures=some, num_tokens=num_tokens)
                sums_NM[start : start + len(some)] += seen_BM
        return unit_rows(sums_NM)

    def embed_both(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Matrix:
        """Return emb_NM of texts that look at their pictures, and back (cross-modal attention).

        Of a model without a fusion it is the sum of the two. Of a text of more than one segment
        each looks by itself.
        """
        if not self._is_fused:
            return super().embed_both(texts, pictures)
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        segments, owners = self._reader.segments(texts)
        looks_LNPC = [self._read_pictures(pictures, look) for look in self._looks]
        vectors_SM = np.zeros((len(segments), self.dim), dtype=np.float32)
        # words and patches look at all that is there, so nothing is padded
        for chosen, ids_BT in self._reader.batches(segments, step=1):
            read_BTD = self._run("text", "read", ids=ids_BT)
            num_tokens = len(chosen) * (read_BTD.shape[1] + self._patches)
            for seen_NPC in looks_LNPC:
                picture_BPC = seen_NPC[[owners[at] for at in chosen]]
                vectors_SM[chosen] += self._vectors(
                    "both", text=read_BTD, picture=picture_BPC, num_tokens=num_tokens
                )
        return mean_of_segments(vectors_SM, owners, len(texts))

    def num_tokens(self, texts: Sequence[str], num_pictures: int) -> int:
        """Return the tokens of all segments, and the patches of so many pictures."""
        segments, _ = self._reader.segments(texts) if texts else ([], [])
        return sum(map(len, segments)) + num_pictures * self._patches * len(self._looks)

    @property
    def expert_tokens(self) -> NDArray[np.int64] | None:
        """How many tokens chose each expert (E,) since the model was loaded, where it tells."""
        return None if self._load is None else self._load.read()[0]

    @property
    def expert_steps(self) -> int:
        """How many tokens, of texts and of pictures, went through the experts since then."""
        return 0 if self._load is None else self._load.read()[1]

    @property
    def token_width(self) -> int:
        """W; raises NotAvailable for a model of the first form, which gives no states."""
        width = self._description.get("states")
        if width is None:
            raise NotAvailable(
                f"The model {self.name!r} gives no token states.",
                hint="Take the package's own: model='default'.",
            )
        return int(width)

    def text_states(self, texts: Sequence[str]) -> list[Matrix]:
        """Return states_TW of each text, float32 unit rows, of all its segments."""
        segments, owners = self._reader.segments(texts)
        states: list[Matrix] = [np.empty((0, self.token_width), dtype=np.float32)] * len(segments)
        for chosen, ids_BT in self._reader.batches(segments):
            for at, tokens_TW in zip(chosen, self._run("text", "states", ids=ids_BT), strict=True):
                states[at] = unit_rows(tokens_TW[: len(segments[at])])
        parts: list[list[Matrix]] = [[] for _ in texts]
        for owner, tokens_TW in zip(owners, states, strict=True):
            parts[owner].append(tokens_TW)
        return [np.concatenate(some) for some in parts]

    def picture_states(self, pictures: Sequence[Image.Image]) -> list[Matrix]:
        """Return states_PW of each picture, float32 unit rows of its 49 places at first look."""
        return [
            unit_rows(patches_PW)
            for _, squares in self._squares(pictures, self._looks[0])
            for patches_PW in self._run("image", "states", pictures=squares)
        ]

    @property
    def has_scorer(self) -> bool:
        """Whether `score_pairs` answers."""
        return "pair.onnx" in self._description["files"]

    @property
    def pair_weight(self) -> float:
        """How many cosines a unit of a pair's score is worth, as chosen when it was trained."""
        return float(self._description.get("pair_weight", 0.0))

    @property
    def num_patches(self) -> int:
        """How many states a picture has."""
        return self._patches

    def score_pairs(self, text_TW: Matrix, pictures: Sequence[Matrix]) -> Vector:
        """Return scores_K: how well a text fits each picture, from the states of both.

        Higher is better; no cosine. Raises NotAvailable for a model without a scorer.
        """
        if not self.has_scorer:
            raise NotAvailable(f"The model {self.name!r} has no scorer of pairs.")
        scores = [np.empty(0, dtype=np.float32)]
        for start in range(0, len(pictures), _PAIRS):
            picture_BPW = np.stack(pictures[start : start + _PAIRS])
            scores.append(self._run("pair", "scores", text=text_TW[None], picture=picture_BPW))
        # the last bits depend on what else is scored, and would break ties
        return np.concatenate(scores).round(_DECIMALS)

    @property
    def has_places(self) -> bool:
        """Whether `hidden_places` answers; a model of an earlier form does not."""
        return "places.onnx" in _files(self._description)

    def hidden_places(self, pictures: Sequence[Image.Image]) -> list[Cube]:
        """Return lost_RCM of each picture: its vector less that without the 3 x 3 around a place.

        At first look, where there are more. Raises NotAvailable for a model that does not tell.
        """
        if not self.has_places:
            raise NotAvailable(f"The model {self.name!r} does not tell places apart.")
        found = []
        for _, squares in self._squares(pictures, self._looks[0]):
            outputs = ["read", self._place_states, "vectors"]
            looked = zip(*self._outputs("image", outputs, pictures=squares), strict=True)
            found += [self._lost(*of_one) for of_one in looked]
        return found

    def _lost(self, read_PC: Matrix, patches_PW: Matrix, vector_M: Vector) -> Cube:
        rows, columns = self._description["places"]
        lost_PM = np.empty((rows * columns, self.dim), dtype=np.float32)
        for hidden_N, kept_NK in left_over(rows, columns):
            inputs = {"read": read_PC[kept_NK], self._place_states: patches_PW[kept_NK]}
            lost_PM[hidden_N] = vector_M - self._run("places", **inputs)
        return lost_PM.reshape(rows, columns, -1)

    def _read_pictures(self, pictures: Sequence[Image.Image], look: Look) -> Cube:
        squares = self._squares(pictures, look)
        return np.concatenate([self._run("image", "read", pictures=some) for _, some in squares])

    def _squares(
        self, pictures: Sequence[Image.Image], look: Look
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield batches: where in `pictures` they begin, and what the tower sees of them."""
        for start in range(0, len(pictures), _PICTURES):
            some = pictures[start : start + _PICTURES]
            yield start, np.stack([look.square(picture, self.picture_size) for picture in some])

    def segmented(self, text: str, *, pictured: bool) -> Sequence[str]:
        """Return the parts of a text that are read one by one; `embed` takes each as a text.

        With a picture it stays whole where its vector is no mean of theirs: without a fusion, or
        with more than one look.
        """
        if pictured and not (self._is_fused and len(self._looks) == 1):
            return [text]
        return [Segment.of(ids) for ids in self._reader.segments([text])[0]]

    @cached_property
    def _reader(self) -> TextReader:
        limits = self._description["text"]
        # reading 66,000 pieces holds the interpreter, opening a graph does not: a cold start has
        # time for both at once. What the graph lacks is told when it is asked
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._session, "text")
            try:
                tokenizer = read_tokenizer(self.folder)
            except Exception as error:  # gzip, zlib and tokenizers each have their own
                raise _damaged(self.folder / PACKED) from error
        return TextReader(
            tokenizer,
            max_tokens=int(limits["max_tokens"]),
            max_segments=int(limits["max_segments"]),
        )

    def _vectors(self, graph: str, *, num_tokens: int, **inputs: NDArray[Any]) -> Matrix:
        """Run a graph with experts in it, and count what they were asked."""
        if self._load is None:
            return self._run(graph, **inputs)
        vectors, load_E = self._outputs(graph, ["vectors", "load"], **inputs)
        self._load.add(load_E, num_tokens=num_tokens)
        return vectors

    def _run(self, graph: str, output: str = "vectors", /, **inputs: NDArray[Any]) -> Matrix:
        return self._outputs(graph, [output], **inputs)[0]

    def _outputs(self, graph: str, outputs: list[str], /, **inputs: NDArray[Any]) -> list[Matrix]:
        found: list[Matrix] = self._session(graph).run(outputs, inputs)
        return found

    def _session(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                path = self.folder / f"{graph}.onnx"
                try:
                    self._sessions[graph] = open_session(path, threads=self._threads)
                except Exception as error:  # ONNX Runtime's have no class in common
                    raise _damaged(path) from error
            return self._sessions[graph]


def _damaged(path: Path) -> NotAvailable:
    return NotAvailable(f"{path} of the model is damaged or gone.", hint=_mend(path.parent))


def _mend(folder: Path) -> str:
    """Return what to do where a file of the model is not as it was."""
    if folder == DEFAULT_FOLDER:
        return "Install triptych again."
    return (
        f"Restore {folder}, or, where it is a collection's copy of this version's own model, "
        "delete it: it is copied again."
    )


def _files(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return sizes and sums of all files, those aside too: what no vector or score depends on."""
    return {**description["files"], **description.get("aside", {})}


def fingerprint(description: Mapping[str, Any]) -> str:
    """Hex digest over the files' sums and all that turns an item into a vector."""
    keys = ("dim", "image", "text", "quantisation")
    counted = {key: description[key] for key in keys if key in description}
    counted["files"] = {name: file["sha256"] for name, file in description["files"].items()}
    return sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
