"""Hubs: items that lie near to every question, and so come first without being its answer.

How much of a hub an item is, is measured on questions of training: the soft maximum of its cosines
with them (inverted softmax, Smith et al. 2017, 1702.03859; querybank normalisation, Bogolin et al.
2022, 2112.12777). There it is taken off a score; here it is told in two numbers of the embedding,
so that the cosine of two vectors, and with it every index, sees it.

B items, K centres, M embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput

MOST_TOLD = 0.7  # of what tells of a hub: its square and the constant's stay below 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HubnessConfig:
    """How hubs are found, and how much they lose."""

    num_centres: int = 256  # questions like each other stand for all of them
    sharpness: float = 20.0  # of the soft maximum; its inverse temperature
    strength: float = 0.7  # cosines that are taken off per unit of hubness
    constant: float = 0.4  # what the other side's number is multiplied with
    floor: float = 0.05  # what is less of a hub than a typical item by more is unlike all questions

    def __post_init__(self) -> None:
        if self.num_centres < 1 or self.sharpness <= 0 or self.strength < 0 or self.floor < 0:
            raise InvalidInput(
                f"Got {self}, expected a centre or more, a sharpness above 0, and no less than 0 "
                "of the rest."
            )
        if self.constant <= 0 or self.constant**2 + MOST_TOLD**2 >= 1:
            raise InvalidInput(
                f"Got the constant {self.constant}: its square and {MOST_TOLD}'s leave no room in "
                "a unit vector.",
                hint="Expected a constant above 0 and below 0.71.",
            )


class QueryBank(nn.Module):
    """What one kind of question looks like: centres, and the share of questions near each."""

    centres_KM: Tensor
    log_shares_K: Tensor
    typical: Tensor

    def __init__(self, config: HubnessConfig, *, dim: int) -> None:
        super().__init__()
        self.config = config
        num = config.num_centres
        self.register_buffer("centres_KM", torch.zeros(num, dim))
        self.register_buffer("log_shares_K", torch.full((num,), 1.0 / num).log())
        self.register_buffer("typical", torch.zeros(()))  # hubness of the items of training

    def forward(self, emb_BM: Tensor) -> Tensor:
        """Return hubness_B, in cosines: 0 for a typical item, higher for a hub."""
        sharpness = self.config.sharpness
        with torch.autocast(emb_BM.device.type, enabled=False):  # hubs differ by hundredths
            near_BK = sharpness * emb_BM.float() @ self.centres_KM.T + self.log_shares_K
        return near_BK.logsumexp(dim=1) / sharpness - self.typical


class Hubness(nn.Module):
    """Makes texts and pictures tell how much of a hub they are.

    The first two numbers of an embedding are the text's constant and what it tells, those of a
    picture what it tells and its constant: in the product of both each meets the other's constant.
    Of the rest the last two numbers, which say least, make room.
    """

    def __init__(self, config: HubnessConfig, *, dim: int) -> None:
        super().__init__()
        self.config = config
        self.texts = QueryBank(config, dim=dim)  # the questions that pictures are found by
        self.pictures = QueryBank(config, dim=dim)

    def text(self, emb_BM: Tensor) -> Tensor:
        """Return emb_BM, unit rows, of texts whose unit rows are given."""
        told_B = self._told(self.pictures(emb_BM))
        return self._joined(emb_BM, torch.full_like(told_B, self.config.constant), told_B)

    def picture(self, emb_BM: Tensor) -> Tensor:
        """Return emb_BM, unit rows, of pictures whose unit rows are given."""
        told_B = self._told(self.texts(emb_BM))
        return self._joined(emb_BM, told_B, torch.full_like(told_B, self.config.constant))

    def _told(self, hubness_B: Tensor) -> Tensor:
        # around the constant, so that pairs of one kind and of two gain as much by it
        config = self.config
        lost_B = config.strength * hubness_B.clamp(min=-config.floor)
        return (config.constant - lost_B / config.constant).clamp(-MOST_TOLD, MOST_TOLD)

    def _joined(self, emb_BM: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        two_B2 = torch.stack([first_B, second_B], dim=1)
        room_B1 = (1 - two_B2.square().sum(dim=1, keepdim=True)).sqrt()
        return torch.cat([two_B2, room_B1 * functional.normalize(emb_BM[:, :-2], dim=-1)], dim=1)
