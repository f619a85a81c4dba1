"""Frozen towers: MiniLM's token states, and the places of MobileNet's last map.

N items, B a batch of them, T tokens, D width of the text tower, P places, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from benchmarks.common import DATA, WORK
from triptych.encoders.structure.graphs import Grid
from triptych.encoders.towers.mobilenet import MobileNet
from triptych.encoders.towers.states import TokenStates, unpadded
from triptych.encoders.towers.transformer import from_bert
from triptych.training.build import minilm_folder
from triptych.training.features import squash, to_pixels

GRID = Grid(7, 7)
PLACES = 49
CHANNELS = 1280
TEXT_WIDTH = 384
_LONGEST = 32
_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Token states of texts, with what their pieces are."""

    states: TokenStates
    pieces: list[list[str]]
    offsets: list[list[tuple[int, int]]]

    def of(self, rows: Sequence[int]) -> TokenStates:
        """Return the states of some rows, as short as they can be."""
        mask_BT = self.states.mask_BT[rows]
        length = int(mask_BT.sum(dim=1).max())
        return TokenStates(self.states.tokens_BTD[rows, :length].float(), mask_BT[:, :length])


def pictures_of(places_NPC: Tensor, rows: Sequence[int]) -> TokenStates:
    """Return the states of some pictures."""
    return unpadded(places_NPC[rows].float())


class TextTower:
    """all-MiniLM-L6-v2 without its pooling."""

    def __init__(self) -> None:
        folder = minilm_folder(DATA)
        pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        row_of = {piece: row for row, piece in enumerate(pieces)}
        self._tokenizer = Tokenizer(models.WordPiece(row_of, unk_token="[UNK]"))
        self._tokenizer.normalizer = normalizers.BertNormalizer()
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", row_of["[SEP]"]), ("[CLS]", row_of["[CLS]"])
        )
        self._tokenizer.enable_truncation(_LONGEST)
        self._model = from_bert(load_file(folder / "model.safetensors")).eval()

    def __call__(self, texts: Sequence[str]) -> Texts:
        encoded = self._tokenizer.encode_batch(list(texts))
        lengths = torch.tensor([len(one.ids) for one in encoded])
        longest = int(lengths.max())
        tokens_NTD = torch.zeros(len(texts), longest, TEXT_WIDTH, dtype=torch.bfloat16)
        mask_NT = torch.arange(longest) < lengths[:, None]
        for rows in lengths.argsort().split(128):
            length = int(lengths[rows].max())
            ids = [encoded[row].ids + [0] * longest for row in rows.tolist()]
            with torch.inference_mode():
                tokens_BTD = self._model(
                    torch.tensor([one[:length] for one in ids]), mask_NT[rows, :length]
                )
            tokens_NTD[rows, :length] = tokens_BTD.to(torch.bfloat16)
        return Texts(
            states=TokenStates(tokens_NTD, mask_NT),
            pieces=[one.tokens for one in encoded],
            offsets=[one.offsets for one in encoded],
        )


class PictureTower:
    """MobileNetEdgeTPU up to its last map."""

    def __init__(self) -> None:
        self._model = MobileNet.read(DATA / "mobilenet_edgetpu.safetensors").eval()

    def __call__(self, name: str, count: int, picture: Callable[[int], Image.Image]) -> Tensor:
        """Return places_NPC in bfloat16; kept in a file of that name for the next time."""
        folder = WORK / "alignment"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{count}.bf16"
        size = count * PLACES * CHANNELS
        flat = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16)
        places_NPC = flat.view(count, PLACES, CHANNELS)
        done = path.with_suffix(".done")
        if not done.exists():
            for start in range(0, count, _BATCH):
                rows = range(start, min(start + _BATCH, count))
                places_NPC[start : rows.stop] = self._places([picture(row) for row in rows])
            done.touch()
        return places_NPC

    def _places(self, pictures: Sequence[Image.Image]) -> Tensor:
        pixels_BCHW = to_pixels(np.stack([np.asarray(squash(picture)) for picture in pictures]))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            map_BCHW = self._model(pixels_BCHW)
        return map_BCHW.flatten(2).transpose(1, 2).to(torch.bfloat16)
