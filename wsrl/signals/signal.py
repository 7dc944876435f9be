"""A signal: coordinates and the values a field has to take there.

Letters: P points, D coordinates, C channels.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from wsrl.signals.form import SignalForm


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What one field is fitted to.

    Attributes:
        id: Stable name, unique in its source, such as ``digits/train/00017``.
        coords: Points ``(P, D)`` in [-1, 1]^D, float32. Signals on one grid share one tensor object.
        values: Values ``(P, C)``, float32.
        form: What the values are, in which range and on which grid.
        weights: Weight ``(P,)`` of each point in the loss, float32; None where all are 1.
        label: Class name, or None.
        split: ``train``, ``test``, or None where the source has no split.
    """

    id: str
    coords: Tensor
    values: Tensor
    form: SignalForm
    weights: Tensor | None = None
    label: str | None = None
    split: str | None = None

    def sha256(self) -> str:
        """Hash of what a field is fitted to, to tell whether a stored field still belongs to its signal."""
        digest = hashlib.sha256()
        for tensor in (self.coords, self.values, *([] if self.weights is None else [self.weights])):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


@lru_cache(maxsize=64)
def grid_coords(grid: tuple[int, ...]) -> Tensor:
    """Cell centres of a regular grid that fills [-1, 1]^D.

    Args:
        grid: Number of cells along each axis, ``(height, width)`` for an image.

    Returns:
        Coordinates ``(prod(grid), len(grid))`` in row-major order; column ``d`` runs along axis ``d`` of the grid, so
        an image has (down, right). One shared object per grid: do not write into it.
    """
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * (2.0 / n) - 1.0 for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(grid)).float()
