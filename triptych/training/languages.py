"""Other languages, taught to the text tower by what it knows of English (2004.09813).

A word of another language is to have the vector that its English meaning has in the model as it
began. Words are names and tags of emoji, those of dictionaries, and captions in which words have
given way to a language's own (2006.06402). Beside them English texts are held where they were.

B texts, T tokens, D width of the tower, M embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from triptych.encoders.towers.states import TokenStates
from triptych.errors import InvalidInput
from triptych.model import JointModel
from triptych.training.batches import read_texts, text_ids
from triptych.training.code_switching import ARTICLES, joined, switched, switches
from triptych.training.embed import embed_texts
from triptych.training.losses import logits
from triptych.training.objective import Terms
from triptych.training.words import Lexicon, Weighed, Word

_GROUPS = 8  # of like lengths: words and captions are in one batch
_SAME = 0.999  # cosine; what means the same is no counterexample


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagesConfig:
    """What a step reads, in texts, and what its parts weigh."""

    names: int = 80  # of emoji, and their tags
    words: int = 160  # of dictionaries
    captions: int = 56  # with words of another language
    english: int = 16  # English meanings, among the others
    held: int = 64  # texts that stay where they were
    vocabulary: int = 65_783  # pieces; words become such until there are so many
    articles: float = 0.25  # share of the words that have one before them, where a language has any
    of: tuple[str, ...] = ("flickr8k", "fashion")  # whose texts are captions
    scale: float = 20.0  # inverse temperature
    near: float = 10.0  # 1 - cosine, beside the contrast
    still: float = 80.0  # 1 - cosine of what is held
    states: float = 8.0  # relative square error of the states of its tokens
    often: Mapping[str, float] = field(
        default_factory=lambda: {
            "zh": 4.0, "de": 2.5, "es": 2.0, "fr": 2.0, "ja": 2.0, "ko": 2.0, "ru": 2.5,
            "zh-hant": 1.5, "hi": 1.5, "it": 1.5, "pt": 1.5,
            "bn": 0.5, "cs": 0.5, "da": 0.5, "el": 0.5, "es-mx": 0.5, "et": 0.5, "fi": 0.5,
            "hu": 0.5, "lt": 0.5, "nb": 0.5, "ms": 0.5, "sv": 0.5, "th": 0.5, "uk": 0.5,
        }
    )  # fmt: skip  # a language's share, else 1

    def languages(self, of: Iterable[str], count: int, random: Random) -> list[str]:
        """Draw languages by their shares."""
        some = [*of]
        return random.choices(some, [self.often.get(each, 1.0) for each in some], k=count)

    def chances(self, known: Lexicon) -> Iterator[tuple[str, Word, float]]:
        """Yield every word with its language, and how often a step draws it in the mean."""
        for count, of in ((self.names, known.names), (self.words, known.words)):
            total = sum(self.often.get(language, 1.0) for language in of)
            for language, some in of.items():
                times = count * self.often.get(language, 1.0) / total
                yield from ((language, word, times * share) for word, share in some.shares())


class Languages:
    """Draws what a step reads and says how far the model is from it; the teacher is its start."""

    def __init__(
        self,
        config: LanguagesConfig,
        *,
        model: JointModel,
        tokenizer: Tokenizer,
        lexicon: Lexicon,
        said: Mapping[str, Sequence[str]],
        shares: Mapping[str, float],
    ) -> None:
        """`said` are the texts that stay where they were, by set, `shares` of how many of each.

        Raises InvalidInput where no set has words of another language.
        """
        self.config, self._tokenizer = config, tokenizer
        self._teacher = deepcopy(model).eval().requires_grad_(False)
        self._held, self._lexicon = said, lexicon
        self._shares = [shares[name] for name in said]
        self._switch = {each: switches(some.words) for each, some in lexicon.words.items()}
        self._captions = [
            said for name in config.of if self._switch for said in self._held.get(name, ())
        ]
        self._english = lexicon.english()
        if not self._english:
            raise InvalidInput(
                "No set has words of other languages: neither emoji nor dictionaries is there.",
                hint="How to make the latter: python -m triptych.training.dictionaries --help",
            )

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
        states = read_texts(model, ids, groups=_GROUPS)
        return states, model(states, None).emb_BM.float()

    def _drawn(self, random: Random) -> tuple[list[str], Tensor]:
        """Texts, and target_BM: a word's is the middle of its meanings, a caption's that of it."""
        some = [*self._some(self._lexicon.names, self.config.names, random)]
        some += self._some(self._lexicon.words, self.config.words, random)
        some += self._mixed(min(self.config.captions, len(self._captions)), random)
        count = min(self.config.english, len(self._english))
        some += (Word(each, (each,)) for each in random.sample(self._english, count))
        return [word.text for word in some], self._targets(some)

    def _some(self, of: Mapping[str, Weighed], count: int, random: Random) -> Iterator[Word]:
        for language in self.config.languages(of, count, random) if of else ():
            word = of[language].draw(random)
            articles = ARTICLES.get(language, ())
            if articles and random.random() < self.config.articles:
                word = word._replace(text=joined([random.choice(articles), word.text], language))
            yield word

    def _mixed(self, count: int, random: Random) -> Iterator[Word]:
        languages = self.config.languages(self._switch, count, random) if count else []
        for caption, language in zip(random.sample(self._captions, count), languages, strict=True):
            yield Word(switched(caption, self._switch[language], random, language), (caption,))

    def _targets(self, words: Sequence[Word]) -> Tensor:
        """target_BM; of several meanings the second counts for half of the first, and so on."""
        # asked anew in each step: among others a text's vector differs in its last digits, and a
        # run that goes on would not be the same
        asked = [*dict.fromkeys(each for word in words for each in word.english)]
        vectors_NM = embed_texts(self._teacher, self._tokenizer, asked)
        known = dict(zip(asked, vectors_NM, strict=True))
        means = [
            torch.stack([known[each] / (at + 1) for at, each in enumerate(word.english)])
            for word in words
        ]
        return functional.normalize(torch.stack([mean.sum(0) for mean in means]), dim=-1)

    def _kept(self, random: Random) -> list[str]:
        sets = random.choices([*self._held], self._shares, k=self.config.held)
        return [random.choice(self._held[name]) for name in sets]


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
