"""Fits of the same signals from starts that lie apart: what the structure of weights is measured on.

Letters: N fields.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import SignalError
from wsrl.evaluation.pair_measures import compare
from wsrl.evaluation.structure import banded
from wsrl.fields.representation import Representation
from wsrl.fields.starts import start_apart
from wsrl.fitting.engine import FitConfig, field_seed, fit
from wsrl.progress import UNSEEN, Progress
from wsrl.signals.signal import Signal
from wsrl.signals.source import Source
from wsrl.symmetry.matching.barriers import LEAST_POINTS, NUM_POINTS

LAMBDAS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Fits:
    """Fields of some signals that were fitted from one start.

    Attributes:
        ids: Ids ``(N,)`` of the signals that have a field.
        weights: Weights ``(N, *shape)`` in the order of ``ids``.
        start: What all were fitted from, one tensor ``shape`` each, or ``(N, *shape)`` where each had its own.
    """

    ids: list[str]
    weights: Weights
    start: Weights

    def of(self, ids: Sequence[str]) -> tuple[Weights, Weights]:
        """Weights and starts of some of the signals, in their order."""
        rows = torch.tensor([self.ids.index(name) for name in ids])
        starts = {
            name: start[rows] if start.ndim == self.weights[name].ndim else start for name, start in self.start.items()
        }
        return {name: tensor[rows] for name, tensor in self.weights.items()}, starts


def read_usable(source: Source, indices: Sequence[int]) -> list[Signal]:
    """The signals at some indices of a source, without those that cannot be used."""
    signals = []
    for index in indices:
        try:
            signals.append(source[index])
        except SignalError:
            continue
    return signals


def starts_of(representation: Representation, distance: float, seed: int) -> Weights:
    """The start that lies a distance from the one of the representation; equal seeds give equal noise.

    Args:
        representation: What the weights are.
        distance: The distance ``lambda`` in [0, 1].
        seed: Seed of the fresh noise, which is the same at every distance.
    """
    # Never the representation's own seed, whose noise is that of the first start.
    generator = torch.Generator().manual_seed(field_seed(seed, "start apart"))
    return start_apart(representation, representation.initial(), distance, generator)


def fit_from(
    representation: Representation,
    signals: Sequence[Signal],
    config: FitConfig,
    start: Weights,
    shown: Progress = UNSEEN,
) -> Fits:
    """Fit a field to every signal from one start.

    Args:
        representation: What the weights are.
        signals: The signals.
        config: How to fit.
        start: Weights ``shape`` to start from.
        shown: The loop's progress; each field counts one.
    """
    ids, weights = _fitted(representation, signals, config, start, shown)
    return Fits(ids, weights, start)


def fit_from_own_starts(
    representation: Representation, signals: Sequence[Signal], config: FitConfig, shown: Progress = UNSEEN
) -> Fits:
    """Fit a field to every signal, each from a start of its own.

    Args:
        representation: What the weights are; its mask and frozen values are those of all fields.
        signals: The signals.
        config: How to fit; its seed and the id of a signal give the start.
        shown: The loop's progress; each field counts one.
    """
    options = replace(representation.config, start="random")
    sizes = {"in_features": representation.in_features, "out_features": representation.out_features}
    own = Representation.build(options, representation.base, **sizes)
    ids, weights = _fitted(own, signals, config, None, shown)
    return Fits(ids, weights, own_starts(representation, ids, config.seed))


def own_starts(representation: Representation, ids: Sequence[str], seed: int) -> Weights:
    """Starts ``(N, *shape)`` of the fields of :func:`fit_from_own_starts`, by the seed of the fit and the ids."""
    starts = [representation.initial(torch.Generator().manual_seed(field_seed(seed, name))) for name in ids]
    return _stacked(representation, starts)


def _fitted(
    representation: Representation,
    signals: Sequence[Signal],
    config: FitConfig,
    start: Weights | None,
    shown: Progress,
) -> tuple[list[str], Weights]:
    """Ids and weights ``(N, *shape)`` of the signals that could be fitted, in their order."""
    items = ((index, signal.id, signal) for index, signal in enumerate(signals))
    results = {}
    for result in fit(representation, items, config, start=start):
        shown.advance(1)
        if result.weights is not None:
            results[result.index] = result
    fields = [results[index] for index in sorted(results)]
    return [field.id for field in fields], _stacked(representation, [field.weights for field in fields])


def _stacked(representation: Representation, fields: Sequence[Weights]) -> Weights:
    """Weights ``(N, *shape)`` of fields; with no fields, empty."""
    return {
        spec.name: torch.stack([field[spec.name] for field in fields]) if fields else torch.empty(0, *spec.shape)
        for spec in representation.layout
    }


def compare_fits(
    representation: Representation,
    signals: Sequence[Signal],
    first: Fits,
    second: Fits,
    num_points: int = NUM_POINTS,
) -> dict[str, np.ndarray]:
    """The measures of :func:`wsrl.evaluation.pair_measures.compare` for the signals that have both fields.

    Args:
        representation: What the weights are.
        signals: Signals among which are those of the fields.
        first: Fields from one start.
        second: Fields from another one.
        num_points: Points of the path between the fields of a pair.

    Returns:
        One number per pair; nothing where no signal has both fields.
    """
    both = set(first.ids) & set(second.ids)
    shared = [signal for signal in signals if signal.id in both]
    if not shared:
        return {}
    ids = [signal.id for signal in shared]
    pair, starts = zip(*(fits.of(ids) for fits in (first, second)))
    return compare(representation, shared, pair, starts, num_points)


def measure_starts(
    representation: Representation,
    signals: Sequence[Signal],
    fitted: Callable[[float], Fits],
    distances: Sequence[float],
    *,
    seed: int,
    num_points: int = NUM_POINTS,
) -> dict[str, float]:
    """Every measure between fields from one start and fields from starts at some distances.

    Args:
        representation: What the weights are.
        signals: The signals.
        fitted: From a distance to the fields from the start that lies there, such as :func:`fit_from` gives them for
            :func:`starts_of`.
        distances: The distances ``lambda``.
        seed: Seed of the confidence bands.
        num_points: Points of the path between the fields of a pair.

    Returns:
        Means and bands under ``lambda_<distance>.<measure>``, and ``lambda_<distance>.num``, the number of pairs.
    """
    first, metrics = fitted(0.0), {}
    for distance in distances:
        second = fitted(distance) if distance else first
        # Nothing changes on the way from a field to itself.
        along = num_points if distance else LEAST_POINTS
        measures = measure_pair(representation, signals, (first, second), seed=seed, num_points=along)
        metrics |= {f"lambda_{distance:g}.{name}": value for name, value in measures.items()}
    return metrics


def measure_pair(
    representation: Representation,
    signals: Sequence[Signal],
    fits: tuple[Fits, Fits],
    *,
    seed: int,
    num_points: int = NUM_POINTS,
) -> dict[str, float]:
    """Means and bands of every measure between two sets of fields of the same signals, and ``num``, that of pairs.

    Args:
        representation: What the weights are.
        signals: The signals.
        fits: Both sets.
        seed: Seed of the confidence bands.
        num_points: Points of the path between the fields of a pair.
    """
    measures = compare_fits(representation, signals, *fits, num_points)
    return {"num": len(next(iter(measures.values()), ())), **banded(measures, seed)}
