"""One run: a rung and a seed, the same pictures and steps for all, figures on the dev split.

B batch, N pictures, T texts or tokens, M embedding width, P places, W inner width, K candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.ladder.features import PLACES, Features
from benchmarks.ladder.model import Both, Ladder, Rung, Side
from benchmarks.ladder.terms import GRAPHS, matching, terms_of
from triptych.encoders.hubness import Hubness, HubnessConfig
from triptych.encoders.structure.word_graph import Link, word_links
from triptych.encoders.towers.states import TokenStates, rows_of, unpadded
from triptych.training.evaluate import ranks, recall, recall_both_ways
from triptych.training.hubness import settled
from triptych.training.objective import Objective, combine
from triptych.training.schedule import make
from triptych.training.sparsity import SparsityConfig, SparsityScheduler

STEPS, BATCH, CAPTIONS = 120, 128, 1
WARMUP, RATE, DECAY = 10, 2e-3, 0.05
LOOK_EVERY = 20  # steps between two looks at recall and gradients
FIRST = 50  # candidates that the pair scorer orders
CHUNK = 125


class Run:
    """A model in training on the cached features."""

    def __init__(self, rung: Rung, *, seed: int, train: Features, dev: Features) -> None:
        torch.manual_seed(seed)
        self.rung, self.seed, self.train, self.dev = rung, seed, train, dev
        self.model = Ladder(rung)
        self.optimizer = _optimizer(self.model)
        self.schedule = make("fixed")
        layers = list(self.model.layers().values())
        spread = SparsityConfig(by_shape=not rung.alike)
        self.sparsity = (
            SparsityScheduler(spread, layers=layers, steps=STEPS) if rung.sparse else None
        )
        self.hubness: Hubness | None = None
        self.curve: list[tuple[int, float]] = []
        self.gradients: list[dict[str, float]] = []

    def run(self) -> dict[str, object]:
        """Train, and return the figures of the run."""
        started = time.process_time()
        for step, pictures in enumerate(_batches(self.train, self.seed), start=1):
            self._one(step, pictures)
            if step % LOOK_EVERY == 0:
                self._look(step)
        seconds = time.process_time() - started
        if self.rung.hubs:
            self.hubness = self._hubs()
        return {
            "rung": self.rung.name,
            "seed": self.seed,
            "steps": STEPS,
            "batch": BATCH,
            "training_cpu_s": round(seconds, 1),
            **self._figures(),
            "curve": self.curve,
            "gradients": self.gradients,
        }

    def _one(self, step: int, pictures: Sequence[int]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * _share(step)
        random = Random(f"{self.seed}:{step}")
        self.model.train()
        objective, both = self._objective(step, pictures, random)
        self.optimizer.zero_grad()
        objective.total.backward()
        if step % LOOK_EVERY == 0:
            self.gradients.append(self._norms(step))
        if self.sparsity is not None:
            self.sparsity.before_step(step)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.sparsity is not None:
            self.sparsity.after_step(step, self.optimizer)
        if both.routed is not None:
            self.model.moe.adapt(both.routed.load_E, float(both.routed.num_active))
        self.schedule.observe(objective.terms.values())

    def _objective(
        self, step: int, pictures: Sequence[int], random: Random
    ) -> tuple[Objective, Both]:
        drawn = [random.sample(self.train.captions(i), CAPTIONS) for i in pictures]
        views = [random.randrange(2) for _ in pictures]
        owner_T = torch.arange(len(pictures)).repeat_interleave(CAPTIONS)
        text = TokenStates(*self.train.texts([i for some in drawn for i in some]))
        places_BPC = self.train.pictures(pictures, views=views)
        with torch.autocast("cpu", torch.bfloat16):
            both = self.model.both(*text, places_BPC)
        links = self._links([some[0] for some in drawn[:GRAPHS]])
        terms = terms_of(self.model, both, owner_T=owner_T, links=links)
        if self.rung.matched:
            found = matching(self.model, text, unpadded(places_BPC.float()), owner_T=owner_T)
            terms = terms._replace(contrastive=terms.contrastive + found)
        return combine(terms, self.schedule.weights(step / STEPS)), both

    def _links(self, captions: Sequence[int]) -> list[list[Link]]:
        if not self.rung.aligned:
            return []
        return [word_links(self.train.pieces[i]) for i in captions]

    def _norms(self, step: int) -> dict[str, float]:
        norms = {"step": float(step)}
        for layer, parameters in self.model.layers().items():
            grads = [p.grad for p in parameters.values() if p.grad is not None]
            norms[layer] = float(torch.stack([g.norm() for g in grads]).norm())
        return norms

    @torch.inference_mode()
    def _look(self, step: int) -> None:
        first = [self.dev.captions(i)[0] for i in range(self.dev.places_VNPC.shape[1])]
        scores_TN = self._texts(first) @ self._pictures().T
        right_TN = np.eye(len(first), dtype=bool)
        self.curve.append((step, recall(ranks(scores_TN, right_QN=right_TN), at=10)))

    @torch.inference_mode()
    def _figures(self) -> dict[str, object]:
        pictures_NM, owners_T = self._pictures(), self.dev.owners_N
        texts_TM = self._texts(range(len(owners_T)))
        scores_TN = texts_TM @ pictures_NM.T
        right_TN = owners_T[:, None] == np.arange(len(pictures_NM))[None, :]
        figures: dict[str, object] = {
            **recall_both_ways(scores_TN, right_TN=right_TN),
            **self._on_first_captions(scores_TN),
        }
        figures["density"] = 1.0 if self.sparsity is None else self.sparsity.density()
        if self.sparsity is not None:
            masks = self.sparsity.masks.items()
            figures["densities"] = {name: float(mask.float().mean()) for name, mask in masks}
        if self.rung.experts:
            figures["num_active"] = self._experts_in_use()
        return figures

    def _on_first_captions(self, scores_TN: np.ndarray) -> dict[str, float]:
        """Recall@1 of every picture's first text, by cosine and with the scorer's logit added."""
        first = [self.dev.captions(i)[0] for i in range(scores_TN.shape[1])]
        own_N1 = torch.arange(len(first))[:, None]
        cosine_NK, top_NK = torch.from_numpy(scores_TN[first]).topk(FIRST, dim=1)
        hits = {"first_caption@1": top_NK[:, :1] == own_N1}
        if self.rung.cross or self.rung.matched:
            logits = self._matched if self.rung.matched else self._logits
            logits_NK = logits(first, top_NK)
            both_NK = logits_NK + float(self.model.scale()) * cosine_NK
            hits["scorer@1"] = top_NK.gather(1, logits_NK.argmax(dim=1, keepdim=True)) == own_N1
            hits["rerank@1"] = top_NK.gather(1, both_NK.argmax(dim=1, keepdim=True)) == own_N1
        return {name: round(100 * float(hit.float().mean()), 2) for name, hit in hits.items()}

    def _matched(self, texts: Sequence[int], top_NK: Tensor) -> Tensor:
        """logits_NK of the matcher for each text and its candidates."""
        matcher, count = self.model.matcher.eval(), self.dev.places_VNPC.shape[1]
        picture = matcher.picture(unpadded(self.dev.pictures(range(count)).float()))
        scores = []
        for start in range(0, len(texts), CHUNK):
            text = matcher.text(TokenStates(*self.dev.texts(texts[start : start + CHUNK])))
            scores.append(matcher(text, picture))
        return torch.cat(scores).gather(1, top_NK)

    def _logits(self, texts: Sequence[int], top_NK: Tensor) -> Tensor:
        """logits_NK of the scorer for each text and its candidates."""
        found = [side.states for side in self._picture_sides()]
        pictures = TokenStates(*map(torch.cat, zip(*found, strict=True)))
        rows = [
            TokenStates(tokens_TW[None, mask_T], mask_T[None, mask_T])
            for side in self._text_sides(texts)
            for tokens_TW, mask_T in zip(*side.states, strict=True)
        ]
        with torch.autocast("cpu", torch.bfloat16):
            scores = [
                self.model.scorer(row, rows_of(pictures, top_K)).scores_B
                for row, top_K in zip(rows, top_NK, strict=True)
            ]
        return torch.stack(scores).float()

    def _experts_in_use(self) -> float:
        """How many experts a token of the dev split uses on average."""
        used = tokens = 0.0
        self.model.eval()
        for start in range(0, self.dev.places_VNPC.shape[1], CHUNK):
            some = range(start, min(start + CHUNK, self.dev.places_VNPC.shape[1]))
            texts = self.dev.texts([self.dev.captions(i)[0] for i in some])
            with torch.autocast("cpu", torch.bfloat16):
                routed = self.model.both(*texts, self.dev.pictures(some)).routed
            assert routed is not None
            used += float(routed.load_E.sum())
            tokens += float(texts[1].sum()) + len(some) * PLACES
        return round(used / tokens, 3)

    @torch.inference_mode()
    def _hubs(self) -> Hubness:
        """What measures hubs by a caption of each picture of training, and by the pictures."""
        first = [self.train.captions(i)[0] for i in range(self.train.places_VNPC.shape[1])]
        texts_NM = torch.cat([side.emb_BM for side in self._text_sides(first, of=self.train)])
        pictures_NM = torch.cat([side.emb_BM for side in self._picture_sides(of=self.train)])
        return settled(HubnessConfig(), texts_NM, pictures_NM)

    def _texts(self, indices: Sequence[int]) -> np.ndarray:
        emb_NM = torch.cat([side.emb_BM for side in self._text_sides(indices)])
        return (emb_NM if self.hubness is None else self.hubness.text(emb_NM)).numpy()

    def _pictures(self) -> np.ndarray:
        emb_NM = torch.cat([side.emb_BM for side in self._picture_sides()])
        return (emb_NM if self.hubness is None else self.hubness.picture(emb_NM)).numpy()

    def _text_sides(self, indices: Sequence[int], *, of: Features | None = None) -> Iterator[Side]:
        split = of or self.dev
        self.model.eval()
        for start in range(0, len(indices), CHUNK):
            with torch.autocast("cpu", torch.bfloat16):
                yield self.model.text(*split.texts(indices[start : start + CHUNK]))

    def _picture_sides(self, *, of: Features | None = None) -> Iterator[Side]:
        split = of or self.dev
        self.model.eval()
        num_pictures = split.places_VNPC.shape[1]
        for start in range(0, num_pictures, CHUNK):
            with torch.autocast("cpu", torch.bfloat16):
                some = range(start, min(start + CHUNK, num_pictures))
                yield self.model.picture(split.pictures(some))


def _share(step: int) -> float:
    ramp = min(1.0, step / WARMUP)
    return ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))


def _batches(train: Features, seed: int) -> Iterator[list[int]]:
    """STEPS batches of pictures: whole epochs in an order that the seed alone decides."""
    count = train.places_VNPC.shape[1]
    waiting: list[int] = []
    for step in range(STEPS):
        if len(waiting) < BATCH:
            waiting = list(range(count))
            Random(f"{seed}:{step}").shuffle(waiting)
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def _optimizer(model: nn.Module) -> torch.optim.AdamW:
    heavy = [p for p in model.parameters() if p.ndim >= 2]
    light = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [{"params": heavy, "weight_decay": DECAY}, {"params": light, "weight_decay": 0.0}],
        lr=RATE,
        betas=(0.9, 0.98),
    )
