"""What a step is fed with: which rows, their texts as ids, their pictures as maps.

N C H W as in a feature map, B batch, T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from triptych.encoders.towers.states import TokenStates
from triptych.model import JointModel
from triptych.pairs import Row
from triptych.training.features import ViewCache

TRAIN_TOKENS = 64  # captions are short; what is longer is cut in training


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows of a set, and the maps of their pictures (none for sets of text alone)."""

    rows: Sequence[Row]
    cache: ViewCache | None = None
    views: int = 1


class Schedule:
    """Which set a step draws from, by its share, and which of its rows, by the seed."""

    def __init__(
        self,
        *,
        mixture: Mapping[str, float],
        sizes: Mapping[str, int],
        steps: int,
        batch: int,
        seed: str,
    ) -> None:
        self._sizes, self._batch, self._seed = dict(sizes), batch, seed
        self._names = _shared_out({name: mixture[name] for name in mixture if name in sizes}, steps)
        self._turns: list[int] = []
        seen: Counter[str] = Counter()
        for name in self._names:
            self._turns.append(seen[name])
            seen[name] += 1

    def draw(self, step: int) -> tuple[str, list[int]]:
        """Return the set of a step, and its rows; an epoch sees every row once."""
        name = self._names[step]
        size = self._sizes[name]
        count = min(self._batch, size)
        turns = max(size // count, 1)
        epoch, turn = divmod(self._turns[step], turns)
        order = list(range(size))
        Random(f"{self._seed}:{name}:{epoch}").shuffle(order)  # noqa: S311
        return name, order[turn * count : (turn + 1) * count]


def _shared_out(shares: Mapping[str, float], steps: int) -> list[str]:
    """Return a name for each step, of the set that is furthest behind its share.

    Drawn by chance, a set of two fifths would have 53 of 130 steps give or take six.
    """
    due = dict.fromkeys(shares, 0.0)
    names = []
    for _ in range(steps):
        for name, share in shares.items():
            due[name] += share / sum(shares.values())
        names.append(max(due, key=due.__getitem__))
        due[names[-1]] -= 1
    return names


def text_ids(
    tokenizer: Tokenizer, texts: Sequence[str], *, drop: Random | None = None
) -> list[list[int]]:
    """Return the ids of each text; `drop` leaves out every twelfth piece at random, never all."""
    encoded = [item.ids[:TRAIN_TOKENS] for item in tokenizer.encode_batch(list(texts))]
    if drop is not None:
        fewer = [[i for i in ids if i < 4 or drop.random() > 1 / 12] for ids in encoded]
        encoded = [some if len(some) > 2 else ids for some, ids in zip(fewer, encoded, strict=True)]
    return encoded


def padded(ids: Sequence[Sequence[int]], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids_BT and mask_BT, True where there is a token."""
    length = max(map(len, ids))
    ids_BT = torch.tensor([[*some, *[0] * (length - len(some))] for some in ids], device=device)
    return ids_BT, ids_BT != 0


def read_texts(model: JointModel, ids: Sequence[Sequence[int]], *, groups: int = 4) -> TokenStates:
    """Return the tower's states of all texts, read in `groups` of like lengths.

    Captions are 12 tokens in the mean and 35 at most: so two thirds of the work are saved.
    """
    device = model.log_scale.device
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    size = -(-len(order) // groups)
    parts = [
        model.read(*padded([ids[at] for at in order[start : start + size]], device=device))
        for start in range(0, len(order), size)
    ]
    longest = max(part.mask_BT.shape[1] for part in parts)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    tokens, masks = (
        torch.cat([_lengthened(part[side], longest) for part in parts])[back.to(device)]
        for side in (0, 1)
    )
    return TokenStates(tokens, masks)


def _lengthened(part: Tensor, length: int) -> Tensor:
    shape = (len(part), length - part.shape[1], *part.shape[2:])
    return torch.cat([part, part.new_zeros(shape)], dim=1)


def map_batch(source: Source, indices: Sequence[int], random: Random) -> Tensor:
    """Return map_BCHW of random views, mirrored or cropped at random."""
    assert source.cache is not None
    maps = [source.cache.maps(view) for view in range(source.views)]
    map_BHWC = torch.stack([maps[random.randrange(source.views)][row] for row in indices])
    mirrored = torch.tensor([random.random() < 0.5 for _ in indices])
    map_BHWC[mirrored] = map_BHWC[mirrored].flip(2)
    size = random.choice((11, 12, 13, 14, 14))
    top, left = random.randint(0, 14 - size), random.randint(0, 14 - size)
    map_BHWC = map_BHWC[:, top : top + size, left : left + size]
    map_BCHW = map_BHWC.float().permute(0, 3, 1, 2)
    return map_BCHW.contiguous(memory_format=torch.channels_last)
