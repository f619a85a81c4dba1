"""What the two frozen towers say about Flickr8k, computed once and mapped into memory.

The picture's last map, 7x7, is averaged to 4x4: a run fits into minutes on one core that way.

V views, N pictures or texts, T tokens, P the places of a map, C its channels, D MiniLM's width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from benchmarks.common import DATA, WORK
from triptych.encoders.towers.mobilenet import LAST_MAP, MobileNet
from triptych.encoders.towers.transformer import from_bert
from triptych.pairs import Row
from triptych.training.build import minilm_folder
from triptych.training.data import read_rows
from triptych.training.features import CUT, build_cache

FOLDER = WORK.parent / "ladder"
MAPS = WORK.parent / "default" / "features"  # the lower maps are those that the default model uses
GRID = 4
PLACES, CHANNELS, WIDTH = GRID * GRID, 1280, 384
MAX_TOKENS = 40
CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One split: the states of its pictures (as they are, then mirrored) and of its texts."""

    places_VNPC: Tensor
    tokens_TD: Tensor  # all texts one after the other
    starts_N: np.ndarray  # of each text, and the end of the last
    owners_N: np.ndarray  # the picture of each text
    pieces: Sequence[Sequence[str]]  # of each text

    def texts(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """tokens_BTD in float32, padded with zeros, and mask_BT."""
        states = [self.tokens_TD[self.starts_N[i] : self.starts_N[i + 1]] for i in indices]
        tokens_BTD = torch.nn.utils.rnn.pad_sequence(states, batch_first=True).float()
        lengths_B1 = torch.tensor([len(state) for state in states])[:, None]
        return tokens_BTD, torch.arange(tokens_BTD.shape[1])[None, :] < lengths_B1

    def pictures(self, indices: Sequence[int], *, views: Sequence[int] | None = None) -> Tensor:
        """places_BPC in bfloat16 of the pictures, each in its view (0, or 1: mirrored)."""
        chosen = views if views is not None else [0] * len(indices)
        rows = [self.places_VNPC[view, i] for i, view in zip(indices, chosen, strict=True)]
        return torch.stack(rows)

    def captions(self, picture: int) -> range:
        """The indices of a picture's texts."""
        first, last = np.searchsorted(self.owners_N, [picture, picture + 1])
        return range(int(first), int(last))


def load(split: str) -> Features:
    """The features of a split; what is not there yet is computed (minutes, once)."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = read_rows(DATA / "flickr8k.parquet", splits=[split])
    places_VNPC = _mapped(f"places{GRID}.{split}", (2, len(rows), PLACES, CHANNELS))
    if not _done(f"places{GRID}.{split}").exists():
        _fill_places(places_VNPC, rows=rows, split=split)
        _done(f"places{GRID}.{split}").touch()
    ids, pieces = _pieces([text for row in rows for text in row.texts])
    starts_N = np.asarray([0, *itertools.accumulate(map(len, ids))])
    tokens_TD = _mapped(f"tokens.{split}", (int(starts_N[-1]), WIDTH))
    if not _done(f"tokens.{split}").exists():
        _fill_tokens(tokens_TD, ids=ids, starts_N=starts_N)
        _done(f"tokens.{split}").touch()
    owners_N = np.asarray([i for i, row in enumerate(rows) for _ in row.texts])
    return Features(
        places_VNPC=places_VNPC,
        tokens_TD=tokens_TD,
        starts_N=starts_N,
        owners_N=owners_N,
        pieces=pieces,
    )


def _done(name: str) -> Path:
    return FOLDER / f"{name}.done"


def _mapped(name: str, shape: tuple[int, ...]) -> Tensor:
    size = int(np.prod(shape))
    path = str(FOLDER / f"{name}.bf16")
    return torch.from_file(path, shared=True, size=size, dtype=torch.bfloat16).view(shape)


def _fill_places(places_VNPC: Tensor, *, rows: Sequence[Row], split: str) -> None:
    trunk = MobileNet.read(DATA / "mobilenet_edgetpu.safetensors").eval()
    cache = build_cache(rows, name=f"flickr8k.{split}", views=1, seed=0, folder=MAPS, tower=trunk)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(rows), CHUNK):
            map_BCHW = cache.maps(0)[start : start + CHUNK].permute(0, 3, 1, 2)
            for view, seen_BCHW in enumerate((map_BCHW, map_BCHW.flip(3))):
                last_BCHW = trunk(
                    seen_BCHW.contiguous(memory_format=torch.channels_last),
                    after=CUT,
                    until=LAST_MAP,
                )
                pooled_BCHW = functional.adaptive_avg_pool2d(last_BCHW.float(), GRID)
                places_BPC = pooled_BCHW.flatten(2).transpose(1, 2)
                places_VNPC[view, start : start + len(places_BPC)] = places_BPC.to(torch.bfloat16)


def _pieces(texts: Sequence[str]) -> tuple[list[list[int]], list[list[str]]]:
    """The ids and the word pieces of every text."""
    tokenizer = Tokenizer.from_file(str(minilm_folder(DATA) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    encoded = tokenizer.encode_batch(list(texts))
    return [item.ids for item in encoded], [item.tokens for item in encoded]


def _fill_tokens(tokens_TD: Tensor, *, ids: Sequence[Sequence[int]], starts_N: np.ndarray) -> None:
    tower = from_bert(load_file(minilm_folder(DATA) / "model.safetensors")).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in _of_one_length(ids):
            ids_BT = torch.tensor([ids[i] for i in batch])
            states_BTD = tower(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))
            for at, states_TD in zip(batch, states_BTD, strict=True):
                tokens_TD[starts_N[at] : starts_N[at + 1]] = states_TD.to(torch.bfloat16)


def _of_one_length(ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for _, same in itertools.groupby(order, key=lambda i: len(ids[i])):
        chosen = list(same)
        for start in range(0, len(chosen), CHUNK):
            yield chosen[start : start + CHUNK]
