"""The loop: batches of one set each, four terms, averaged weights, checkpoints to resume from.

B batch, T tokens, C classes, M embedding width.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from triptych.encoders.towers.mobilenet import LAST_MAP
from triptych.errors import InvalidInput
from triptych.model import JointModel
from triptych.training import checkpoint, schedule
from triptych.training.batches import Schedule, Source, map_batch, read_texts, text_ids
from triptych.training.checkpoint import Checkpoint
from triptych.training.features import CUT
from triptych.training.languages import Languages
from triptych.training.log import RunLog
from triptych.training.objective import (
    Objective,
    Prototypes,
    class_table,
    combine,
    label_ids,
)
from triptych.training.optimizer import above_towers, freeze, optimizer, set_rates, trained
from triptych.training.precision import autocast
from triptych.training.recipes import Recipe
from triptych.training.sources import SampledTexts, draw_of
from triptych.training.sparsity import SparsityScheduler
from triptych.training.terms import Batch, BatchTerms, pair_terms, terms_of
from triptych.training.words import Lexicon, said_in

LOG = logging.getLogger(__name__)

Figures = Mapping[str, float]


class Trainer:
    """A run that can be stopped after any checkpoint and goes on as if it had not been."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        model: JointModel,
        tokenizer: Tokenizer,
        sources: Mapping[str, Source],
        folder: Path,
        lexicon: Lexicon | None = None,
    ) -> None:
        """`lexicon` is what a recipe of languages teaches."""
        self.recipe, self.tokenizer, self.folder = recipe, tokenizer, folder
        # of its own: batches that an earlier stage saw would be known by heart
        self.chance = f"{recipe.seed}:{recipe.name}"
        self.mixture = recipe.mixture_of(sources)
        self.sources = {name: sources[name] for name in self.mixture}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classes = _classes(recipe, self.sources)
        self.model = model
        self.languages = self._languages(lexicon)
        freeze(recipe, model)
        # the classes' names are met in training alone, so their vectors are no part of the model
        self.prototypes = nn.ModuleDict(
            {name: Prototypes(len(c), dim=model.config.dim) for name, c in self.classes.items()}
        )
        self.parts = nn.ModuleDict({"model": model, "prototypes": self.prototypes}).to(self.device)
        self.step, self.best, self.waited = 0, -1.0, 0
        self.schedule = self._mixed()
        self.weights = schedule.make(recipe.weights)
        self.optimizer = optimizer(recipe, self.parts)
        self.sparsity = (
            None
            if recipe.sparsity is None
            else SparsityScheduler(recipe.sparsity, layers=above_towers(model), steps=recipe.steps)
        )
        self.began = {name: tensor.detach().clone() for name, tensor in trained(model).items()}
        self.average = {name: tensor.clone() for name, tensor in self.began.items()}
        self.best_state: dict[str, Tensor] = {}  # of all that moves; where the recipe is patient
        folder.mkdir(parents=True, exist_ok=True)
        self._restore()

    def train(self, *, measure: Callable[[], Figures], until: int | None = None) -> None:
        """Train to the end, or to `until`; measure and write a checkpoint now and then.

        Stops early when the first figure has not risen for `patience` measurements; then, and at
        the end of such a run, `result` is what the best of them measured.
        """
        log = RunLog(self.folder, steps=self.recipe.steps, done=self.step)
        last = min(until or self.recipe.steps, self.recipe.steps)
        try:
            while self.step < last and not self._is_stale():
                self._run(until=min(self.step + self.recipe.eval_every, last), log=log)
                self.save()  # before it is measured: what fails there costs no step
                figures = self._measured(measure)
                log.figures(self.step, figures)
                self._note(figures)
                self.save()
        finally:
            log.close()

    def _run(self, *, until: int, log: RunLog) -> None:
        self.model.train()
        started, first = time.monotonic(), self.step
        while self.step < until:
            name, objective, found = self._one()
            record: dict[str, object] | None = None
            if self.step % 10 == 0 or self.step == until:
                each = (time.monotonic() - started) / (self.step - first)
                record = {"set": name, **objective.record(), "seconds": round(each, 2)}
                record |= {"num_active": found.num_active} if found.load_E is not None else {}
                started, first = time.monotonic(), self.step
            log.step(self.step, record)

    def _one(self) -> tuple[str, Objective, BatchTerms]:
        random = Random(f"{self.chance}:{self.step}")  # noqa: S311
        torch.manual_seed(random.randrange(2**31))
        set_rates(self.recipe, self.optimizer, self.step)
        name, found = self._drawn(random)
        objective = combine(found.terms, self.weights.weights(self.step / self.recipe.steps))
        objective.total.backward()  # type: ignore[no-untyped-call]
        if self.sparsity is not None:
            self.sparsity.before_step(self.step + 1)
        if not nn.utils.clip_grad_norm_(trained(self.parts).values(), 1.0).isfinite():
            # one step by it, and no weight is left: not in the next checkpoint either
            raise InvalidInput(
                f"Step {self.step + 1}, on {name}, has a gradient that is not finite.",
                hint="Lower the learning rate; the last checkpoint is from before this step.",
            )
        self.optimizer.step()
        if self.sparsity is not None:
            self.sparsity.after_step(self.step + 1, self.optimizer)
        self.optimizer.zero_grad()
        self.weights.observe(found.terms.values())
        if found.load_E is not None and self.model.moe is not None:
            self.model.moe.adapt(found.load_E, found.num_active)
        self.step += 1
        self._move_average()
        return name, objective, found

    def _drawn(self, random: Random) -> tuple[str, BatchTerms]:
        """The terms of a step, and the set that it was drawn from."""
        if self.languages is None:
            name, indices = self.schedule.draw(self.step)
            return name, self._terms(name, indices, random)
        with autocast(self.device):
            return "languages", BatchTerms(self.languages.terms(self.model, random), None, 0.0)

    def _terms(self, name: str, indices: Sequence[int], random: Random) -> BatchTerms:
        source = self.sources[name]
        rows = [source.rows[at] for at in indices]
        drawn = draw_of(name)(rows, random)
        prototypes = self.prototypes[name]() if name in self.classes else None
        labels = label_ids([row.label for row in rows], self.classes.get(name, {}))
        with autocast(self.device):
            batch = self._batch(drawn, source, indices, random, labels=labels)
            if self.recipe.scorer_only:
                return pair_terms(self.model, batch)
            return terms_of(self.model, batch, recipe=self.recipe, prototypes_CM=prototypes)

    def _batch(
        self,
        drawn: SampledTexts,
        source: Source,
        indices: Sequence[int],
        random: Random,
        *,
        labels: Tensor,
    ) -> Batch:
        number = {group: at for at, group in enumerate(dict.fromkeys(drawn.groups))}
        texts = [*drawn.texts, *(drawn.beside if self.recipe.both_weight else ())]
        ids = text_ids(self.tokenizer, texts, drop=random)
        with torch.set_grad_enabled(self.recipe.train_text):
            text = read_texts(self.model, ids)
        picture = None
        if source.cache is not None:
            after = LAST_MAP if self.recipe.picture_after is None else self.recipe.picture_after
            with torch.no_grad():
                map_BCHW = map_batch(source, indices, random).to(self.device)
                assert self.model.picture is not None
                map_BCHW = self.model.picture(map_BCHW, after=CUT, until=after)
            picture = self.model.look(map_BCHW, after=after)
        return Batch(
            text=text,
            picture=picture,
            group_B=torch.tensor([number[group] for group in drawn.groups], device=self.device),
            owner_T=torch.tensor(drawn.owners, device=self.device),
            label_B=labels.to(self.device),
        )

    def _mixed(self) -> Schedule:
        return Schedule(
            mixture=self.mixture,
            sizes={name: len(source.rows) for name, source in self.sources.items()},
            steps=self.recipe.steps,
            batch=self.recipe.batch,
            seed=self.chance,
        )

    def _languages(self, lexicon: Lexicon | None) -> Languages | None:
        if self.recipe.languages is None:
            return None
        assert lexicon is not None, "what is prepared for a recipe of languages has one"
        return Languages(
            self.recipe.languages,
            model=self.model.to(self.device),
            tokenizer=self.tokenizer,
            lexicon=lexicon,
            said={name: sorted(said_in(self.sources[name].rows)) for name in self.mixture},
            shares=self.mixture,
        )

    def _measured(self, measure: Callable[[], Figures]) -> Figures:
        """What the averaged weights reach."""
        current = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.averaged())
        self.model.eval()
        figures = measure()
        self.model.load_state_dict(current)
        return figures

    def _note(self, figures: Figures) -> None:
        value = next(iter(figures.values()), 0.0)
        if value <= self.best or math.isnan(value):
            self.waited += 1
            return
        self.best, self.waited = value, 0
        if self.recipe.patience:
            fixed = {name for name, p in self.model.named_parameters() if not p.requires_grad}
            self.best_state = {
                name: value.clone() for name, value in self.averaged().items() if name not in fixed
            }

    def _is_stale(self) -> bool:
        return self.recipe.patience > 0 and self.waited >= self.recipe.patience

    def _move_average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        moving = trained(self.model)
        torch._foreach_lerp_(
            [self.average[name] for name in moving],
            [parameter.detach() for parameter in moving.values()],
            1 - keep,
        )
        if self.sparsity is not None:
            self.sparsity.mask_(self.average)

    def averaged(self) -> dict[str, Tensor]:
        """Return the state of the model: its weights' average, with those kept of the start."""
        moved = {
            name: torch.lerp(value, self.began[name], self.recipe.kept)
            for name, value in self.average.items()
        }
        if self.sparsity is not None:
            self.sparsity.mask_(moved)
        return {**self.model.state_dict(), **moved}

    def result(self) -> dict[str, Tensor]:
        """Return the state that the stage ends with."""
        return {**self.averaged(), **self.best_state}

    def save(self) -> None:
        """Write a checkpoint: weights, their average, the optimizer's moments, all counters."""
        tensors = dict(_prefixed("parts.", self.parts.state_dict()))
        tensors |= _prefixed("average.", self.average)
        tensors |= _prefixed("best.", self.best_state)
        if self.sparsity is not None:
            tensors |= _prefixed("masks.", self.sparsity.state_dict())
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer.{index}.", state)
        checkpoint.save(
            self.folder,
            Checkpoint(
                step=self.step,
                config=json.loads(json.dumps(asdict(self.recipe))),
                tensors=tensors,
                numbers={
                    "weights": self.weights.state_dict(),
                    "best": self.best,
                    "waited": self.waited,
                },
            ),
        )

    def _restore(self) -> None:
        found = checkpoint.load(self.folder, config=asdict(self.recipe))
        if found is None:
            return
        try:
            self.parts.load_state_dict(_under("parts.", found.tensors))
        except RuntimeError as error:  # pieces and classes come from the data
            what = " ".join(str(error).split())
            raise InvalidInput(
                f"The checkpoint in {self.folder} was written with other data ({what}).",
                hint="Go on with the data that the run began with, or give it another folder.",
            ) from error
        for name, value in _under("average.", found.tensors).items():
            self.average[name].copy_(value)
        if self.sparsity is not None:
            self.sparsity.load_state_dict(_under("masks.", found.tensors))
        best = _under("best.", found.tensors)
        self.best_state = {name: value.to(self.device) for name, value in best.items()}
        state: dict[int, dict[str, Tensor]] = {}
        moving = [one for group in self.optimizer.param_groups for one in group["params"]]
        for name, value in _under("optimizer.", found.tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = _laid_out(value, like=moving[int(index)])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.weights.load_state_dict(found.numbers["weights"])
        self.best, self.waited = found.numbers["best"], found.numbers["waited"]
        self.step = found.step
        LOG.info("resumed at step %d", self.step)


def _classes(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, dict[str, int]]:
    """The classes of every set that the recipe classifies."""
    tables = {
        name: class_table(row.label for row in sources[name].rows)
        for name in recipe.classified
        if name in sources
    }
    return {name: table for name, table in tables.items() if table}


def _laid_out(moment: Tensor, *, like: Tensor) -> Tensor:
    """Return it in the other's order of memory, by which the fused optimizer goes through both."""
    return torch.empty_like(like).copy_(moment) if moment.shape == like.shape else moment


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }
