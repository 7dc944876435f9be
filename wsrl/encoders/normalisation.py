"""Statistics of the weights of a set of fields, and the vectors that networks over weights see.

Letters: B fields, W weights of a field, V trainable ones among them.
"""

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.fields.gauge import CANONICAL, RAW, canonical, check_gauge
from wsrl.fields.layout import Layout

STD_FLOOR = 1e-3
"""Smallest standard deviation that is divided by, as a share of the root mean square over all coordinates."""


class WeightStatistics(nn.Module):
    """Mean and standard deviation of each trainable weight, and the frozen weights all fields share.

    Masked (frozen) entries never enter the normalised vector, and come back bit for bit on the way out. A coordinate
    that hardly varies is divided by the floor ``STD_FLOOR`` times the root mean square of all, so that rounding
    noise is not blown up to unit size. They are buffers: they are saved and moved with the model that owns them.

    Here alone a model's weights are brought into its gauge, so that training, evaluation and sampling agree on it.

    Args:
        layout: Layout of the fields.
        gauge: ``raw`` takes weights as they are, ``canonical`` in the form of :mod:`wsrl.fields.gauge`.

    Raises:
        UserError: The gauge is unknown, or the fields have no factors.
    """

    def __init__(self, layout: Layout, gauge: str = RAW):
        super().__init__()
        check_gauge(gauge, layout)
        self.layout, self.gauge = layout, gauge
        trainable = layout.trainable()
        self.register_buffer("trainable_index", trainable.nonzero().squeeze(1), persistent=False)
        self.register_buffer("frozen_index", (~trainable).nonzero().squeeze(1), persistent=False)
        self.register_buffer("mean", torch.zeros(layout.num_trainable))
        self.register_buffer("std", torch.ones(layout.num_trainable))
        self.register_buffer("frozen", torch.zeros(layout.num_weights - layout.num_trainable))

    @classmethod
    def from_batches(cls, layout: Layout, batches: Iterable[dict[str, Tensor]], gauge: str = RAW) -> "WeightStatistics":
        """Measure a stream of fields in one pass, with memory for one batch.

        Args:
            layout: Layout of the fields.
            batches: Weight dictionaries with a leading axis, ``(B, *shape)`` each; B may vary.
            gauge: The gauge that the weights are measured in.

        Returns:
            The statistics, in float32 (accumulated in float64).

        Raises:
            UserError: If there is no field, or if a number is not finite.

        Source: Chan, Golub and LeVeque 1979, the pairwise update of mean and sum of squares.
        """
        statistics, moments = cls(layout, gauge), Moments(layout.num_trainable)
        for weights in batches:
            flat = layout.flatten(statistics.in_gauge(weights)).cpu()
            if moments.count == 0 and len(flat):
                statistics.frozen.copy_(flat[0, statistics.frozen_index])
            moments.update(flat[:, statistics.trainable_index].double())
        statistics._take(moments)
        return statistics

    def _take(self, moments: "Moments") -> None:
        if moments.count == 0:
            raise UserError("there are no fields to measure", allowed="at least one field", do="build the store first")
        if not bool(torch.isfinite(moments.squares).all()):
            raise UserError(
                "some weights are NaN or infinite", allowed="finite weights", do="run `wsrl verify` on the store"
            )
        # Weights that hardly vary are divided by a floor, a share of the root mean square of all.
        std = (moments.squares / moments.count).sqrt()
        floor = STD_FLOOR * std.square().mean().sqrt()
        self.mean.copy_(moments.mean)
        self.std.copy_(std.clamp_min(floor) if floor > 0 else torch.ones_like(std))

    def in_gauge(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` of the same fields in the gauge that the model is made for."""
        return canonical(self.layout, weights) if self.gauge == CANONICAL else weights

    def normalise(self, weights: dict[str, Tensor]) -> Tensor:
        """The trainable entries ``(B, V)`` of weights ``(B, *shape)``, each with mean 0 and variance 1 over the set."""
        flat = self.layout.flatten(self.in_gauge(weights))
        return (flat[..., self.trainable_index] - self.mean) / self.std

    def denormalise(self, vector: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` of vectors ``(B, V)``; the inverse of :meth:`normalise` to rounding, in its gauge."""
        values = vector * self.std + self.mean  # float32 at least, also where an autocast network wrote the vector
        flat = values.new_empty(*vector.shape[:-1], self.layout.num_weights)
        flat[..., self.trainable_index] = values
        flat[..., self.frozen_index] = self.frozen.to(values)
        return self.layout.unflatten(flat)


class Moments:
    """Count, mean and sum of squared deviations of the rows seen so far."""

    def __init__(self, size: int):
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.squares = torch.zeros(size, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Merge rows ``(B, V)``."""
        if len(rows) == 0:
            return
        # Chan, Golub and LeVeque: the rows' own squares, and those of the gap between the two means.
        mean, total = rows.mean(0), self.count + len(rows)  # (V,)
        gap = mean - self.mean
        self.squares += (rows - mean).square().sum(0) + gap.square() * (self.count * len(rows) / total)
        self.mean += gap * (len(rows) / total)
        self.count = total


def shared_statistics(statistics: WeightStatistics) -> WeightStatistics:
    """The same statistics, shared by all entries that a permutation of the layout may exchange.

    One mean and standard deviation remain per tensor and per index of its fixed axes, so that normalising commutes with
    the permutations. Where a mask breaks them every axis is fixed and nothing is shared.

    Args:
        statistics: Mean and standard deviation of each entry.

    Returns:
        A new object; the mixture of the entries' distributions has the mean and spread that it gives to each.
    """
    layout = statistics.layout
    return _averaged(statistics, _exchangeable(layout)[layout.trainable()])


def pooled_statistics(statistics: WeightStatistics) -> WeightStatistics:
    """The same statistics with one mean and one standard deviation for all entries together."""
    return _averaged(statistics, torch.zeros(len(statistics.mean), dtype=torch.long))


def _averaged(statistics: WeightStatistics, groups: Tensor) -> WeightStatistics:
    """Statistics of the mixtures of the entries with equal labels in ``groups (V,)``."""
    _, groups, counts = groups.unique(return_inverse=True, return_counts=True)
    mean, std = statistics.mean.cpu().double(), statistics.std.cpu().double()

    def average(values: Tensor) -> Tensor:
        return (values.new_zeros(len(counts)).index_add_(0, groups, values) / counts)[groups]

    shared = WeightStatistics(statistics.layout, statistics.gauge)
    shared.mean.copy_(average(mean))
    shared.std.copy_((average(std.square()) + average((mean - average(mean)).square())).sqrt())
    shared.frozen.copy_(statistics.frozen)
    return shared


def _exchangeable(layout: Layout) -> Tensor:
    """A label ``(W,)`` for each entry, equal for entries of one tensor that differ in permuted axes alone."""
    parts, first = [], 0
    for spec in layout:
        sizes = [1 if axis is not None else size for size, axis in zip(spec.shape, spec.axes)]
        labels = torch.arange(prod(sizes)).reshape(sizes) + first
        parts.append(labels.expand(spec.shape).flatten())  # (size of the tensor,)
        first += prod(sizes)
    return torch.cat(parts)
