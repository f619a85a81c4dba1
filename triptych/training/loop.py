"""The loop: batches of one set each, two towers, averaged weights, checkpoints to resume from.

N C H W as in a feature map, B batch, T tokens, M embedding width.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from triptych.encoders.mobilenet import LAST_MAP, PictureTower
from triptych.encoders.transformer import TextTower
from triptych.training.data import Row
from triptych.training.features import CUT, ViewCache
from triptych.training.losses import cross_modal, joint
from triptych.training.recipes import Recipe
from triptych.training.sources import DRAWS, Drawn

LOG = logging.getLogger(__name__)

TRAIN_TOKENS = 64  # captions are short; what is longer is cut in training


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows of a set, and the maps of their pictures (none for sets of text alone)."""

    rows: Sequence[Row]
    cache: ViewCache | None = None
    views: int = 1


class Towers(nn.Module):
    """The two towers and the temperature."""

    def __init__(self, *, text: TextTower, picture: PictureTower) -> None:
        super().__init__()
        self.text, self.picture = text, picture
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=60.0)


def token_batch(
    tokenizer: Tokenizer, texts: Sequence[str], *, drop: Random | None = None
) -> tuple[Tensor, Tensor]:
    """ids_BT and mask_BT, padded; `drop` leaves out every twelfth piece at random."""
    encoded = [item.ids[:TRAIN_TOKENS] for item in tokenizer.encode_batch(list(texts))]
    if drop is not None:
        encoded = [[i for i in ids if i < 4 or drop.random() > 1 / 12] for ids in encoded]
    length = max(map(len, encoded))
    ids_BT = torch.tensor([ids + [0] * (length - len(ids)) for ids in encoded])
    return ids_BT, ids_BT != 0


def map_batch(source: Source, indices: Sequence[int], random: Random) -> Tensor:
    """map_BCHW of random views, mirrored or cropped at random."""
    assert source.cache is not None
    maps = [source.cache.maps(view) for view in range(source.views)]
    map_BHWC = torch.stack([maps[random.randrange(source.views)][row] for row in indices])
    mirrored = torch.tensor([random.random() < 0.5 for _ in indices])
    map_BHWC[mirrored] = map_BHWC[mirrored].flip(2)
    size = random.choice((11, 12, 13, 14, 14))
    top, left = random.randint(0, 14 - size), random.randint(0, 14 - size)
    map_BHWC = map_BHWC[:, top : top + size, left : left + size]
    return map_BHWC.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class Schedule:
    """Which set a step draws from, and which of its rows: decided by the seed alone."""

    def __init__(self, recipe: Recipe, *, sizes: Mapping[str, int]) -> None:
        self._recipe, self._sizes = recipe, dict(sizes)
        random, names = Random(recipe.seed), [name for name in recipe.mixture if name in sizes]  # noqa: S311
        shares = [recipe.mixture[name] for name in names]
        self._names = random.choices(names, weights=shares, k=recipe.steps)
        self._turns: list[int] = []
        seen: Counter[str] = Counter()
        for name in self._names:
            self._turns.append(seen[name])
            seen[name] += 1

    def draw(self, step: int) -> tuple[str, list[int]]:
        name = self._names[step]
        size = self._sizes[name]
        count = min(self._recipe.batch, size)
        turns = max(size // count, 1)
        epoch, turn = divmod(self._turns[step], turns)
        order = list(range(size))
        Random(f"{self._recipe.seed}:{name}:{epoch}").shuffle(order)  # noqa: S311
        return name, order[turn * count : (turn + 1) * count]


class Trainer:
    """A run that can be stopped after any checkpoint and goes on as if it had not been."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        towers: Towers,
        tokenizer: Tokenizer,
        sources: Mapping[str, Source],
        folder: Path,
    ) -> None:
        self.recipe, self.towers, self.tokenizer, self.sources = recipe, towers, tokenizer, sources
        self.folder = folder
        self.step = 0
        self.schedule = Schedule(
            recipe, sizes={name: len(source.rows) for name, source in sources.items()}
        )
        self.optimizer = _optimizer(recipe, towers)
        self.average = {name: tensor.clone() for name, tensor in _trained(towers).items()}
        self._restore()

    def run(self, *, until: int) -> None:
        """Train up to step `until`, and write a checkpoint."""
        self.towers.train()
        started, first = time.monotonic(), self.step
        while self.step < until:
            name, loss = self._one()
            if self.step % 10 == 0 or self.step == until:
                each = (time.monotonic() - started) / (self.step - first)
                self._log({"step": self.step, "set": name, "loss": loss, "seconds": round(each, 2)})
                started, first = time.monotonic(), self.step
        self.save()

    def _one(self) -> tuple[str, float]:
        name, indices = self.schedule.draw(self.step)
        random = Random(f"{self.recipe.seed}:{self.step}")  # noqa: S311
        torch.manual_seed(random.randrange(2**31))
        self._set_rates()
        loss = self._loss(name, indices, random)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(_trained(self.towers).values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._move_average()
        return name, round(float(loss.detach()), 4)

    def _loss(self, name: str, indices: Sequence[int], random: Random) -> Tensor:
        source = self.sources[name]
        drawn = DRAWS[name]([source.rows[i] for i in indices], random)
        with torch.autocast("cpu", torch.bfloat16):
            texts_TM = self._texts(drawn, random)
            pictures_IM = (
                self._pictures(map_batch(source, indices, random)) if source.cache else None
            )
        return self._contrast(texts_TM, pictures_IM, drawn)

    def _texts(self, drawn: Drawn, random: Random) -> Tensor:
        ids_BT, mask_BT = token_batch(self.tokenizer, drawn.texts, drop=random)
        text = self.towers.text
        text.transformer.train(self.recipe.train_text)
        with torch.set_grad_enabled(self.recipe.train_text):
            pooled_BD = text.pooled(ids_BT, mask_BT)
        return functional.normalize(text.project(pooled_BD).float(), dim=-1)

    def _pictures(self, map_BCHW: Tensor) -> Tensor:
        after = LAST_MAP if self.recipe.picture_after is None else self.recipe.picture_after
        with torch.no_grad():
            map_BCHW = self.towers.picture.trunk(map_BCHW, after=CUT, until=after)
        return functional.normalize(self.towers.picture(map_BCHW, after=after).float(), dim=-1)

    def _contrast(self, texts_TM: Tensor, pictures_IM: Tensor | None, drawn: Drawn) -> Tensor:
        number = {group: i for i, group in enumerate(dict.fromkeys(drawn.groups))}
        group_I = torch.tensor([number[group] for group in drawn.groups])
        group_T = group_I[torch.tensor(drawn.owners)]
        scale = self.towers.scale()
        if pictures_IM is None:
            return joint(texts_TM, group_N=group_T, scale=scale)
        both = cross_modal(pictures_IM, texts_TM, group_I=group_I, group_T=group_T, scale=scale)
        if not self.recipe.joint_weight:
            return both
        all_NM, group_N = torch.cat([pictures_IM, texts_TM]), torch.cat([group_I, group_T])
        return both + self.recipe.joint_weight * joint(all_NM, group_N=group_N, scale=scale)

    def _set_rates(self) -> None:
        recipe = self.recipe
        ramp = min(1.0, (self.step + 1) / max(recipe.warmup, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / recipe.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * ramp * (0.02 + 0.98 * cosine)

    def _move_average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        trained = _trained(self.towers)
        torch._foreach_lerp_(
            [self.average[name] for name in trained],
            [p.detach() for p in trained.values()],
            1 - keep,
        )

    def averaged(self) -> dict[str, Tensor]:
        """The state of the towers with averaged weights."""
        return {**self.towers.state_dict(), **self.average}

    def _log(self, record: Mapping[str, object]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        LOG.info("%s", record)

    def save(self) -> None:
        """Write a checkpoint: weights, their average, the optimizer's moments and the step."""
        tensors = {
            f"model.{name}": value.contiguous() for name, value in self.towers.state_dict().items()
        }
        tensors |= {f"average.{name}": value.contiguous() for name, value in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{key}": value.contiguous() for key, value in state.items()
            }
        path = self.folder / "checkpoint.safetensors"
        save_file(tensors, path.with_suffix(".new"), metadata={"step": str(self.step)})
        path.with_suffix(".new").replace(path)

    def _restore(self) -> None:
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return
        tensors = load_file(path)
        self.towers.load_state_dict(_under("model.", tensors))
        self.average = _under("average.", tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step = int(_metadata(path)["step"])
        LOG.info("resumed at step %d", self.step)


def _metadata(path: Path) -> Mapping[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }


def _trained(towers: Towers) -> dict[str, nn.Parameter]:
    return {name: p for name, p in towers.named_parameters() if p.requires_grad}


def _optimizer(recipe: Recipe, towers: Towers) -> torch.optim.AdamW:
    _freeze(recipe, towers)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in _trained(towers).items():
        plain = parameter.ndim < 2 or "words" in name
        key = (_peak(recipe, name), 0.0 if plain else recipe.weight_decay)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "peak": peak, "weight_decay": decay}
            for (peak, decay), params in groups.items()
        ],
        betas=(0.9, 0.98),
    )


def _freeze(recipe: Recipe, towers: Towers) -> None:
    trunk = towers.picture.trunk
    after = recipe.picture_after
    moving = set() if after is None else {id(p) for p in trunk.parameters_after(after)}
    for name, parameter in towers.named_parameters():
        frozen_trunk = ".trunk." in name and id(parameter) not in moving
        frozen_text = name.startswith("text.transformer.") and not recipe.train_text
        fixed = frozen_trunk or frozen_text or name == "picture.head.scale"
        parameter.requires_grad_(not fixed)


def _peak(recipe: Recipe, name: str) -> float:
    """The highest learning rate of a parameter."""
    if ".trunk." in name:
        return recipe.lr_picture
    if "text.transformer.blocks." in name:
        return recipe.lr_text * recipe.layer_decay ** (5 - int(name.split(".")[3]))
    if "text.transformer.words" in name:
        return recipe.lr_words
    if "text.transformer." in name:
        return recipe.lr_text * recipe.layer_decay**6
    return recipe.lr_head
