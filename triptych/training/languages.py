"""Other languages, taught to the text tower by what it knows of English (2004.09813).

A word of another language is to have the vector that its English meaning has in the model as it
began. Words are names and tags of emoji, those of dictionaries, and captions in which words have
given way to a language's own (2006.06402). Beside them English texts are held where they were.

B texts, T tokens, D width of the tower, M embedding width.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import accumulate, chain
from random import Random
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from triptych.encoders.towers.states import TokenStates
from triptych.errors import InvalidInput
from triptych.model import JointModel
from triptych.pairs import Row
from triptych.training.batches import Source, read_texts, text_ids
from triptych.training.embed import embed_texts
from triptych.training.losses import logits
from triptych.training.objective import Terms

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_UNSPACED = ("zh", "zh-hant", "ja")
_ARTICLES = frozenset({"a", "an", "the", "of", "is", "are"})
_ENDINGS = (("", ""), ("s", ""), ("es", ""), ("ing", ""), ("ing", "e"), ("ed", ""), ("d", ""))
_LIKE = 0.5  # Dice; a tag's emoji are then those of one English tag
_SAME = 0.999  # cosine; what means the same is no counterexample


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagesConfig:
    """What a step reads, in texts, and what its parts weigh."""

    names: int = 96  # of emoji, and their tags
    words: int = 160  # of dictionaries
    captions: int = 64  # with words of another language
    english: int = 24  # English meanings, among the others
    held: int = 72  # texts that stay where they were
    of: tuple[str, ...] = ("flickr8k", "fashion")  # whose texts are captions
    scale: float = 20.0  # inverse temperature
    near: float = 10.0  # 1 - cosine, beside the contrast
    still: float = 80.0  # 1 - cosine of what is held
    states: float = 8.0  # relative square error of the states of its tokens
    often: Mapping[str, float] = field(
        default_factory=lambda: {
            "zh": 4.0, "zh-hant": 1.5, "de": 2.0, "es": 2.0, "fr": 2.0, "hi": 1.5, "it": 1.5,
            "ja": 2.0, "ko": 2.0, "pt": 1.5, "ru": 2.0,
        }
    )  # fmt: skip  # a language's share, else 1


class Word(NamedTuple):
    """A word or name in some language, and what it means in English: all of these."""

    text: str
    english: tuple[str, ...]


class Weighed:
    """Words of a language, of which each is drawn as often as another, or by its weight."""

    def __init__(self, words: Sequence[Word], weights: Iterable[float] | None = None) -> None:
        self.words = words
        self._until = None if weights is None else list(accumulate(weights))

    def draw(self, random: Random) -> Word:
        """Return one of them."""
        return random.choices(self.words, cum_weights=self._until)[0]


class Languages:
    """Draws what a step reads and says how far the model is from it; the teacher is its start."""

    def __init__(
        self,
        config: LanguagesConfig,
        *,
        model: JointModel,
        tokenizer: Tokenizer,
        sources: Mapping[str, Source],
        held: Mapping[str, float],
    ) -> None:
        """`held` are the shares of the sets whose texts stay where they were.

        Raises InvalidInput where no set has words of another language.
        """
        self.config, self._tokenizer = config, tokenizer
        self._teacher = deepcopy(model).eval().requires_grad_(False)
        self._held = {name: sorted(_said(sources[name].rows)) for name in held}
        self._shares = [held[name] for name in self._held]
        rows = {name: source.rows for name, source in sources.items()}
        dictionaries = rows.pop("dictionaries", ())
        count = counted(rows.values())
        words = words_of(dictionaries, count=count)
        names = names_of(rows.get("emoji", ()))
        self._names = {each: Weighed(some) for each, some in names.items()}
        self._words = {each: Weighed(some, common(some, count)) for each, some in words.items()}
        self._switch = {each: switches(some, self._pieces(some)) for each, some in words.items()}
        self._captions = [said for name in config.of if words for said in self._held.get(name, ())]
        all_words = chain.from_iterable((*names.values(), *words.values()))
        self._english = sorted({each for word in all_words for each in word.english})
        if not self._english:
            raise InvalidInput(
                "No set has words of other languages: neither emoji nor dictionaries is there.",
                hint="How to make the latter: python -m triptych.training.dictionaries --help",
            )
        asked = [*self._english, *self._captions]
        self._vector = dict(zip(asked, embed_texts(self._teacher, tokenizer, asked), strict=True))

    def _pieces(self, words: Sequence[Word]) -> list[int]:
        return [len(ids) for ids in text_ids(self._tokenizer, [word.text for word in words])]

    def terms(self, model: JointModel, random: Random) -> Terms:
        """Return how far a drawn batch is from its meanings, and what is held from where it was."""
        texts, target_BM = self._drawn(random)
        emb_BM = self._embedded(model, text_ids(self._tokenizer, texts, drop=random))[1]
        held = text_ids(self._tokenizer, self._kept(random))
        states, held_BM = self._embedded(model, held)
        with torch.no_grad():
            were, were_BM = self._embedded(self._teacher, held)
        moved = self.config.still * _apart(held_BM, were_BM)
        moved = moved + self.config.states * _squared(states, were)
        contrast = _contrast(emb_BM, target_BM.to(emb_BM.device), scale=self.config.scale)
        far = self.config.near * _apart(emb_BM, target_BM.to(emb_BM.device))
        return Terms(contrastive=contrast + far, regularisation=moved)

    def _embedded(
        self, model: JointModel, ids: Sequence[Sequence[int]]
    ) -> tuple[TokenStates, Tensor]:
        states = read_texts(model, ids)
        return states, model(states, None).emb_BM.float()

    def _drawn(self, random: Random) -> tuple[list[str], Tensor]:
        """Texts, and target_BM: a word's is the middle of its meanings, a caption's that of it."""
        some = [*self._some(self._names, self.config.names, random)]
        some += self._some(self._words, self.config.words, random)
        count = min(self.config.captions, len(self._captions))
        languages = self._languages(self._switch, count, random) if count else []
        for caption, language in zip(random.sample(self._captions, count), languages, strict=True):
            mixed = switched(
                caption, self._switch[language], random, spaced=language not in _UNSPACED
            )
            some.append(Word(mixed, (caption,)))
        count = min(self.config.english, len(self._english))
        some += (Word(each, (each,)) for each in random.sample(self._english, count))
        means = [torch.stack([self._vector[each] for each in word.english]).sum(0) for word in some]
        return [word.text for word in some], functional.normalize(torch.stack(means), dim=-1)

    def _some(self, of: Mapping[str, Weighed], count: int, random: Random) -> Iterator[Word]:
        for language in self._languages(of, count, random) if of else ():
            yield of[language].draw(random)

    def _languages(self, of: Mapping[str, object], count: int, random: Random) -> list[str]:
        return random.choices([*of], [self.config.often.get(each, 1.0) for each in of], k=count)

    def _kept(self, random: Random) -> list[str]:
        sets = random.choices([*self._held], self._shares, k=self.config.held)
        return [random.choice(self._held[name]) for name in sets]


def names_of(rows: Sequence[Row]) -> dict[str, list[Word]]:
    """Return names and tags of emoji by language.

    A name means the English one. A tag means the English tag whose emoji are most alike its own
    (Dice), or else all that its first emoji are called.
    """
    english = [frozenset(map(str.lower, row.texts)) for row in rows]
    count = Counter(each for texts in english for each in texts)
    found: dict[str, list[Word]] = defaultdict(list)
    tagged: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, row in enumerate(rows):
        for language, (name, *tags) in _foreign(row):
            # a hundred hands and faces are there five times more, in shades
            if "skin tone" not in row.texts[0] or at % 10 == 0:
                found[language].append(Word(name, (row.texts[0],)))
            for tag in dict.fromkeys(tags):
                tagged[language][tag].append(at)
    for language, tags_of in tagged.items():
        for tag, places in tags_of.items():
            shared = Counter(each for at in places for each in english[at])
            dice = {each: 2 * n / (len(places) + count[each]) for each, n in shared.items()}
            best = max(dice, key=lambda each: (dice[each], -len(each), each))
            alike = len(places) > 1 and dice[best] >= _LIKE
            called = tuple(rows[at].texts[0] for at in places[:6])
            found[language].append(Word(tag, (best,) if alike else called))
    return dict(found)


def _foreign(row: Row) -> Iterator[tuple[str, list[str]]]:
    for language, names in row.attributes.items():
        if not language.startswith("en") and isinstance(names, list) and names:
            yield language, [str(name) for name in names]


def counted(sets: Iterable[Sequence[Row]]) -> Counter[str]:
    """Return how often each English word stands in the texts of some sets."""
    return Counter(word for rows in sets for said in _said(rows) for word in _words_in(said))


def words_of(rows: Sequence[Row], *, count: Mapping[str, int]) -> dict[str, list[Word]]:
    """Return words of dictionaries by language, whose meanings are of words that stand in a text.

    What the model has met nowhere, it can tell nobody the meaning of.
    """
    found: dict[str, list[Word]] = defaultdict(list)
    for row in rows:
        text, *meanings = row.texts
        english = tuple(each for each in meanings[:3] if _times(each, count) > 1)
        if english:
            found[row.label].append(Word(text, english))
    return dict(found)


def common(words: Sequence[Word], count: Mapping[str, int]) -> list[float]:
    """Return a weight for each word: the more, the more common its first meaning is.

    Words of one meaning share it, or a language's rare synonyms would be most of what is learnt.
    """
    alike = Counter(word.english[0] for word in words)
    return [_times(word.english[0], count) ** 0.4 / alike[word.english[0]] for word in words]


def switches(
    words: Sequence[Word], length: Sequence[int], *, most: int = 3
) -> dict[str, list[str]]:
    """Return a language's words by the single English one that they mean first.

    Of those of one meaning the shortest, in pieces: pieces are what is common.
    """
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for word, pieces in zip(words, length, strict=True):
        if " " not in word.english[0] and word.text.count(" ") < 2:
            found[word.english[0]].append((pieces, word.text))
    return {english: [text for _, text in sorted(texts)[:most]] for english, texts in found.items()}


def switched(
    caption: str, switch: Mapping[str, Sequence[str]], random: Random, *, spaced: bool
) -> str:
    """Return a caption in which words have given way to those of a language, articles to nothing.

    Short words that it has none for are left out now and then.
    """
    out = []
    for word in _words_in(caption):
        foreign = _looked_up(word, switch)
        if foreign and random.random() < 0.95:
            out.append(random.choice(foreign))
        elif word not in _ARTICLES and (len(word) > 4 or random.random() < 0.5):
            out.append(word)
    return (" " if spaced else "").join(out) or caption


def _looked_up(word: str, switch: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return next((switch[form] for form in _forms(word) if form in switch), ())


def _forms(word: str) -> Iterator[str]:
    """A word, and what it may be a form of: dog for dogs, run for running, bake for baking."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            stem = word.removesuffix(ending) + instead
            yield stem
            if len(stem) > 1 and stem[-1] == stem[-2]:
                yield stem[:-1]


def _words_in(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _times(english: str, count: Mapping[str, int]) -> int:
    """How often the rarest of its words was met."""
    return min((count.get(word, 0) for word in _words_in(english)), default=0)


def _said(rows: Sequence[Row]) -> set[str]:
    return {text for row in rows for text in (*row.texts, row.label) if text}


def _contrast(emb_BM: Tensor, target_BM: Tensor, *, scale: float) -> Tensor:
    """Each finds its meaning among those of the batch; what means the same is no counterexample."""
    same_BB = target_BM @ target_BM.T > _SAME
    other_BB = same_BB & ~torch.eye(len(same_BB), dtype=torch.bool, device=same_BB.device)
    scores_BB = logits(emb_BM, target_BM, scale=scale).masked_fill(other_BB, -torch.inf)
    return functional.cross_entropy(scores_BB, torch.arange(len(scores_BB), device=emb_BM.device))


def _apart(one_BM: Tensor, other_BM: Tensor) -> Tensor:
    return (1 - (one_BM * other_BM).sum(dim=-1)).mean()


def _squared(states: TokenStates, were: TokenStates) -> Tensor:
    """The mean square by which tokens' states moved, as a share of how much these differ."""
    there = were.mask_BT
    now_ND, then_ND = states.tokens_BTD[there].float(), were.tokens_BTD[there].float()
    return (now_ND - then_ND).square().mean() / then_ND.var()
