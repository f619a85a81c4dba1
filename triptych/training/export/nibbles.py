"""A table in four bits: each BLOCK of a row has a scale, the least lossy of a few.

V rows, D numbers in each, B blocks of K, P pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # numbers
# of a block's range, as what is cut off may cost less; 1 and 7/8 give back what was kept before
_SHRINKING = (0.7, 0.75, 0.8, 0.85, 7 / 8, 0.95, 1.0)


def in_nibbles(
    table_VD: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Return two numbers in each byte, the even one low, 8 for zero; and scale_VB of each block."""
    blocks_VBK = table_VD.reshape(len(table_VD), -1, BLOCK)
    widest_VB1 = np.maximum(np.abs(blocks_VBK).max(axis=2, keepdims=True) / 7, 1e-6)
    best_VB1 = np.full_like(widest_VB1, np.inf)
    scale_VB1 = widest_VB1.astype(np.float16)
    for share in _SHRINKING:
        tried_VB1 = (share * widest_VB1).astype(np.float16)
        lost_VB1 = np.square(_steps(blocks_VBK, tried_VB1) * tried_VB1 - blocks_VBK)
        lost_VB1 = lost_VB1.sum(axis=2, keepdims=True)
        scale_VB1 = np.where(lost_VB1 < best_VB1, tried_VB1, scale_VB1)
        best_VB1 = np.minimum(lost_VB1, best_VB1)
    steps_VD = (_steps(blocks_VBK, scale_VB1) + 8).astype(np.uint8).reshape(table_VD.shape)
    pairs_VP = steps_VD[:, 0::2] + steps_VD[:, 1::2] * np.uint8(16)
    return pairs_VP, scale_VB1[:, :, 0].astype(np.float16)


def of_nibbles(pairs_VP: NDArray[np.uint8], scale_VB: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the table_VD that `in_nibbles` wrote, as near as it is kept."""
    steps_VP2 = np.stack([pairs_VP & 15, pairs_VP >> 4], axis=-1).astype(np.float32) - 8
    blocks_VBK = steps_VP2.reshape(*scale_VB.shape, BLOCK)
    table_VD = (blocks_VBK * scale_VB[:, :, None]).reshape(len(pairs_VP), -1)
    return table_VD.astype(np.float32)


def _steps(blocks_VBK: NDArray[np.float32], scale_VB1: NDArray[np.float16]) -> NDArray[np.float32]:
    return np.clip(np.rint(blocks_VBK / scale_VB1.astype(np.float32)), -8, 7)
