"""What questions look like: the centres that a finished model measures hubs by.

N embeddings, K centres, M embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import faiss
import numpy as np
import torch
from torch import Tensor

from triptych.encoders.hubness import Hubness, HubnessConfig, QueryBank
from triptych.model import JointModel
from triptych.training.build import TrainingContext
from triptych.training.embed import embed_maps, embed_texts

MOST = 30_000  # texts of a set
ROUNDS = 20  # of k-means


def fit(
    model: JointModel,
    context: TrainingContext,
    *,
    config: HubnessConfig,
    sets: Sequence[str],
    seed: int = 0,
) -> None:
    """Give the model its `hubness`, from the texts and pictures that some sets train on.

    Questions of every kind would fit no item: what is a hub among photos is none among products.
    """
    model.hubness = None
    texts, pictures = [], []
    for name in sets:
        source = context.sources[name]
        assert source.cache is not None, "a set with pictures"
        said = [text for row in source.rows for text in row.texts]
        some = Random(seed).sample(said, min(MOST, len(said)))  # noqa: S311
        texts.append(embed_texts(model, context.tokenizer, some))
        pictures.append(embed_maps(model, source.cache.maps(0)))
    model.hubness = settled(config, torch.cat(texts), torch.cat(pictures), seed=seed)


def settled(
    config: HubnessConfig, texts_NM: Tensor, pictures_NM: Tensor, *, seed: int = 0
) -> Hubness:
    """Return what measures hubs by these texts and pictures, all of them of training."""
    few = min(config.num_centres, len(texts_NM), len(pictures_NM))
    hubness = Hubness(replace(config, num_centres=few), dim=texts_NM.shape[1])
    _settle(hubness.texts, questions_NM=texts_NM, items_NM=pictures_NM, seed=seed)
    _settle(hubness.pictures, questions_NM=pictures_NM, items_NM=texts_NM, seed=seed)
    return hubness.eval()


def _settle(bank: QueryBank, *, questions_NM: Tensor, items_NM: Tensor, seed: int) -> None:
    dim, num = questions_NM.shape[1], bank.config.num_centres
    means = faiss.Kmeans(dim, num, niter=ROUNDS, seed=seed, min_points_per_centroid=1)
    means.train(questions_NM.numpy())
    centres_KM = means.centroids
    assert centres_KM is not None
    near_N = means.index.search(questions_NM.numpy(), 1)[1][:, 0]
    count_K = np.bincount(near_N, minlength=num).clip(min=1)
    bank.centres_KM.copy_(torch.from_numpy(centres_KM.reshape(num, dim)))
    bank.log_shares_K.copy_(torch.from_numpy(np.log(count_K / count_K.sum())))
    with torch.inference_mode():
        bank.typical.copy_(bank(items_NM).mean())
