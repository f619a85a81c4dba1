"""Graphs of batches as torch-geometric wants them: flat nodes, links between them, features.

B batch, T pieces, P patches, D width, E links of the whole batch, F features of a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from triptych.encoders.scorers.maxsim import unit_tokens
from triptych.encoders.structure.word_graph import KINDS, Link
from triptych.encoders.towers.states import TokenStates
from triptych.errors import InvalidInput

PATCH_FEATURES = 5  # right, down, distance, is a step on the grid, is near in feature space
WORD_FEATURES = 2 + len(KINDS)  # direction, 1 / distance, kind
_STEPS = 1e4  # cosines are compared in steps of this part of 1


class Grid(NamedTuple):
    """Rows and columns of a picture's patches, in reading order."""

    rows: int
    columns: int


class Links(NamedTuple):
    """The links of a batch; nodes are numbered through it, row after row."""

    edges_2E: Tensor  # int64, source and target
    features_EF: Tensor
    spans_2E: Tensor | None = None  # of a text: the pieces start:stop between the two, numbered so


def text_links(links: Sequence[Sequence[Link]], *, mask_BT: Tensor) -> Links:
    """Put the links of every text together; those that touch padding are left out.

    Raises InvalidInput where there are not as many lists of links as texts.
    """
    if len(links) != len(mask_BT):
        raise InvalidInput(f"Got links of {len(links)} texts, expected those of {len(mask_BT)}.")
    length, there = mask_BT.shape[1], mask_BT.cpu().numpy()
    rows = [
        (row * length, link)
        for row, of_text in enumerate(links)
        for link in of_text
        if max(link.source, link.target) < length
        and there[row, link.source]
        and there[row, link.target]
    ]
    edges = [(first + link.source, first + link.target) for first, link in rows]
    spans = [(first + link.start, first + link.stop) for first, link in rows]
    features = [_word_features(link) for _, link in rows]
    device = mask_BT.device
    return Links(
        torch.tensor(edges, dtype=torch.long, device=device).view(-1, 2).T,
        torch.tensor(features, dtype=torch.float32, device=device).view(-1, WORD_FEATURES),
        torch.tensor(spans, dtype=torch.long, device=device).view(-1, 2).T,
    )


def _word_features(link: Link) -> list[float]:
    step = link.target - link.source
    kind = [float(link.kind == one) for one in KINDS]
    return [1.0 if step > 0 else -1.0, 1.0 / abs(step), *kind]


def patch_links(picture: TokenStates, grid: Grid, *, reach: int, nearest: int) -> Links:
    """Return links along rows, columns and diagonals, up to `reach` steps, and from the `nearest`.

    A link's features say how far to the right and down its source lies, as parts of the picture.
    Raises InvalidInput where the patches do not fill the grid.
    """
    batch, patches = picture.mask_BT.shape
    if patches != grid.rows * grid.columns:
        raise InvalidInput(
            f"Got {patches} patches, expected {grid.rows} x {grid.columns}, one per place."
        )
    device = picture.mask_BT.device
    steps_2E = _steps(grid, reach).to(device)
    first_B = torch.arange(batch, device=device) * patches
    on_grid_2E = (steps_2E[:, None] + first_B[:, None]).flatten(1)
    near_2E = _nearest(picture, nearest)
    edges_2E = torch.cat([on_grid_2E, near_2E], dim=1)
    is_step_E = torch.arange(edges_2E.shape[1], device=device) < on_grid_2E.shape[1]
    both_E = picture.mask_BT.flatten()[edges_2E].all(dim=0)
    edges_2E, is_step_E = edges_2E[:, both_E], is_step_E[both_E]
    places_P2 = places(grid).to(device)
    offset_E2 = places_P2[edges_2E[0] % patches] - places_P2[edges_2E[1] % patches]
    kinds_E2 = torch.stack([is_step_E, ~is_step_E], dim=1)
    length_E1 = offset_E2.norm(dim=1, keepdim=True)
    return Links(edges_2E, torch.cat([offset_E2, length_E1, kinds_E2], dim=1))


def places(grid: Grid) -> Tensor:
    """Return places_P2: the middle of every patch, right and down, in 0..1."""
    down_P, right_P = torch.meshgrid(
        (torch.arange(grid.rows) + 0.5) / grid.rows,
        (torch.arange(grid.columns) + 0.5) / grid.columns,
        indexing="ij",
    )
    return torch.stack([right_P.flatten(), down_P.flatten()], dim=1)


@cache
def _steps(grid: Grid, reach: int) -> Tensor:
    """Return edges_2E of one picture: the moves of a chess queen, up to `reach` squares."""
    moves = [(1, 0), (0, 1), (1, 1), (1, -1), (-1, 0), (0, -1), (-1, -1), (-1, 1)]
    pairs = [
        (row * grid.columns + column, to_row * grid.columns + to_column)
        for row in range(grid.rows)
        for column in range(grid.columns)
        for down, right in moves
        for far in range(1, reach + 1)
        if 0 <= (to_row := row + far * down) < grid.rows
        and 0 <= (to_column := column + far * right) < grid.columns
    ]
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2).T


def _nearest(picture: TokenStates, nearest: int) -> Tensor:
    """Return edges_2E from the patches whose states are most like a patch, by cosine."""
    batch, patches = picture.mask_BT.shape
    count = min(nearest, patches - 1)
    with torch.no_grad():
        unit_BPD = unit_tokens(picture).float()
        cosines_BPP = unit_BPD @ unit_BPD.transpose(1, 2)
        # in steps, and the first of equals: what differs in its last bits has the same neighbours
        cosines_BPP = (cosines_BPP * _STEPS).round()
        itself_PP = torch.eye(patches, dtype=torch.bool, device=cosines_BPP.device)
        away_BPP = itself_PP | ~picture.mask_BT.unsqueeze(1)
        order_BPP = cosines_BPP.masked_fill(away_BPP, -torch.inf).argsort(
            dim=-1, descending=True, stable=True
        )
        source_BPK = order_BPP[..., :count]
    target_BPK = torch.arange(patches, device=order_BPP.device)[:, None].expand_as(source_BPK)
    first_B11 = (torch.arange(batch, device=order_BPP.device) * patches)[:, None, None]
    return torch.stack([(source_BPK + first_B11).flatten(), (target_BPK + first_B11).flatten()])
