"""Blocks of a grid: which of them a surface may cross, and how values are spread over what is not evaluated.

Letters: S nodes of a side; n blocks.
"""

from itertools import product
from math import sqrt

import numpy as np

SAFETY = 1.2
"""How much steeper a field may be than it was measured."""
STEEP = 0.8
"""Every block counts as at least as steep as this share of all blocks."""


def may_cross(corners: np.ndarray, slopes: np.ndarray, size: float) -> np.ndarray:
    """Whether blocks may contain the surface: a point is at most half a diagonal away from some corner.

    Args:
        corners: Values at the corners, ``(2, 2, 2, ...)``.
        slopes: How steep the field was found in each block, ``(...)``.
        size: Length of a side.
    """
    nearest = np.maximum(corners.min(axis=(0, 1, 2)), -corners.max(axis=(0, 1, 2)))
    return nearest <= SAFETY * slopes * (size * sqrt(3) / 2)


def corners_of(nodes: np.ndarray) -> np.ndarray:
    """Values ``(2, 2, 2, S - 1, S - 1, S - 1)`` at the corners of the blocks between nodes ``(S, S, S)``."""
    sides = [(slice(None, -1), slice(1, None))] * 3
    return np.stack([nodes[part] for part in product(*sides)]).reshape(2, 2, 2, *(size - 1 for size in nodes.shape))


def slopes_of(corners: np.ndarray) -> np.ndarray:
    """Largest change along the edges of blocks ``(2, 2, 2, ...)``, as the length over the three axes."""
    changes = [np.abs(np.diff(corners, axis=axis)).max(axis=(0, 1, 2)) for axis in range(3)]
    return np.sqrt(sum(np.square(change) for change in changes))


def spread(slopes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The largest slope of a block and its neighbours, at least what is steep in the cube; of blocks ``inside``."""
    from scipy.ndimage import maximum_filter

    steep = np.quantile(slopes[inside], STEEP) if inside.any() else 0.0
    return np.maximum(maximum_filter(np.where(inside, slopes, 0.0), 3), steep)


def painted(nodes: np.ndarray, stride: int) -> np.ndarray:
    """Every node's value on the box behind it, up to the next node."""
    for axis in range(3):
        counts = np.full(nodes.shape[axis], stride)
        counts[-1] = 1
        nodes = nodes.repeat(counts, axis=axis)
    return nodes


def paint(values: np.ndarray, nodes: np.ndarray, new: np.ndarray, stride: int) -> None:
    """Write values of nodes and of the boxes of ``stride`` nodes behind them.

    Args:
        values: The grid; changed in place.
        nodes: Flat indices of the nodes.
        new: Their values.
        stride: Nodes of a side of a box.
    """
    indices = np.unravel_index(nodes, values.shape)
    for offset in np.ndindex(stride, stride, stride):
        index = tuple(np.minimum(p + o, size - 1) for p, o, size in zip(indices, offset, values.shape))
        values[index] = new
