"""Per-coordinate statistics of a set of fields, and the vectors that networks over weights see.

Letters: B fields, W weights of a field, V trainable ones among them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.fields.layout import Layout

STD_FLOOR = 1e-3
"""Smallest standard deviation that is divided by, as a share of the root mean square over all coordinates."""


class WeightStatistics(nn.Module):
    """Mean and standard deviation of each trainable weight, and the frozen weights all fields share.

    Masked (frozen) entries never enter the normalised vector, and come back bit for bit on the way out. A coordinate
    that hardly varies is divided by the floor ``STD_FLOOR`` times the root mean square deviation, so that rounding
    noise is not blown up to unit size. The numbers are buffers: they are saved and moved with the model that owns them.

    Args:
        layout: Layout of the fields.
    """

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout
        trainable = layout.trainable()
        self.register_buffer("trainable_index", trainable.nonzero().squeeze(1), persistent=False)
        self.register_buffer("frozen_index", (~trainable).nonzero().squeeze(1), persistent=False)
        self.register_buffer("mean", torch.zeros(layout.num_trainable))
        self.register_buffer("std", torch.ones(layout.num_trainable))
        self.register_buffer("frozen", torch.zeros(layout.num_weights - layout.num_trainable))

    @classmethod
    def from_batches(cls, layout: Layout, batches: Iterable[dict[str, Tensor]]) -> "WeightStatistics":
        """Measure a stream of fields in one pass, with memory for one batch.

        Args:
            layout: Layout of the fields.
            batches: Weight dictionaries with a leading axis, ``(B, *shape)`` each; B may vary.

        Returns:
            The statistics, in float32 (accumulated in float64).

        Raises:
            UserError: If there is no field, or if a number is not finite.

        Source: Chan, Golub and LeVeque 1979, the pairwise update of mean and sum of squares.
        """
        statistics, moments = cls(layout), _Moments(layout.num_trainable)
        for weights in batches:
            flat = layout.flatten(weights).cpu()
            if moments.count == 0 and len(flat):
                statistics.frozen.copy_(flat[0, statistics.frozen_index])
            moments.update(flat[:, statistics.trainable_index].double())
        statistics._take(moments)
        return statistics

    def _take(self, moments: "_Moments") -> None:
        if moments.count == 0:
            raise UserError("there are no fields to measure", allowed="at least one field", do="build the store first")
        if not bool(torch.isfinite(moments.squares).all()):
            raise UserError(
                "some weights are NaN or infinite", allowed="finite weights", do="run `wsrl verify` on the store"
            )
        std = (moments.squares / moments.count).sqrt()
        floor = STD_FLOOR * std.square().mean().sqrt()
        self.mean.copy_(moments.mean)
        self.std.copy_(std.clamp_min(floor) if floor > 0 else torch.ones_like(std))

    def normalise(self, weights: dict[str, Tensor]) -> Tensor:
        """The trainable entries ``(B, V)`` of weights ``(B, *shape)``, each with mean 0 and variance 1 over the set."""
        return (self.layout.flatten(weights)[..., self.trainable_index] - self.mean) / self.std

    def denormalise(self, vector: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` of vectors ``(B, V)``; the inverse of :meth:`normalise` to rounding."""
        flat = vector.new_empty(*vector.shape[:-1], self.layout.num_weights)
        flat[..., self.trainable_index] = vector * self.std + self.mean
        flat[..., self.frozen_index] = self.frozen
        return self.layout.unflatten(flat)


class _Moments:
    """Count, mean and sum of squared deviations of the rows seen so far."""

    def __init__(self, size: int):
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.squares = torch.zeros(size, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Merge rows ``(B, V)``."""
        if len(rows) == 0:
            return
        mean, total = rows.mean(0), self.count + len(rows)
        gap = mean - self.mean
        self.squares += (rows - mean).square().sum(0) + gap.square() * (self.count * len(rows) / total)
        self.mean += gap * (len(rows) / total)
        self.count = total
