"""The signals that a base field is trained on, in memory, and the batches of its stages.

Letters: N signals, B signals of a batch, P points, D coordinates, C channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrl.fitting.loss import PointLoss, loss_of
from wsrl.options import Allowed, at_least, check, option
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of progressive training.

    Attributes:
        resolution: Share of the full grid along each axis, in (0, 1]; of signals on no grid, share of the points.
        batch_size: Signals of a step.
        steps: Number of optimisation steps.
    """

    resolution: float = option(1.0, Allowed("a share in (0, 1]", lambda value: 0 < value <= 1))
    batch_size: int = option(64, at_least(1))
    steps: int = option(2000, at_least(1))

    def __post_init__(self):
        check(self, "stage.")


class SignalBatch(NamedTuple):
    """Some signals at some points.

    Attributes:
        indices: Rows ``(B,)`` of the signals in the examples.
        coords: Points ``(P, D)`` that they share, or ``(B, P, D)``.
        values: Values ``(B, P, C)``.
        weights: Weights ``(B, P)`` in the loss, or None.
    """

    indices: Tensor
    coords: Tensor
    values: Tensor
    weights: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Signals of one form in memory.

    Attributes:
        values: Values ``(N, P, C)``.
        form: What they have in common.
        coords: Points ``(N, P, D)`` of signals on no grid, in an order that makes any part of them a fair sample.
        weights: Weights ``(N, P)``, or None.
    """

    values: Tensor
    form: SignalForm
    coords: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def of(cls, signals: Sequence[Signal], max_points: int) -> "Examples":
        """Signals as examples.

        Args:
            signals: At least one; all on one grid or all on none.
            max_points: Points that are kept of a signal on no grid, at most.
        """
        first = signals[0]
        if first.form.grid is not None:
            return cls(values=torch.stack([signal.values for signal in signals]), form=first.form)
        num = min(max_points, *(len(signal.coords) for signal in signals))
        weights = None if first.weights is None else torch.stack([signal.weights[:num] for signal in signals])
        coords, values = (torch.stack([part[:num] for part in parts]) for parts in _columns(signals))
        return cls(values=values, coords=coords, weights=weights, form=first.form)

    @staticmethod
    def first_points(signal: Signal, max_points: int) -> Signal:
        """A signal with its first points alone and nothing else that it may hold; all of them where it is on a grid."""
        if signal.form.grid is not None:
            return signal
        names = ("id", "form", "label", "split")
        kept = {name: getattr(signal, name)[:max_points].clone() for name in ("coords", "values")}
        weights = None if signal.weights is None else signal.weights[:max_points].clone()
        return Signal(**{name: getattr(signal, name) for name in names}, **kept, weights=weights)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def loss(self) -> PointLoss:
        """The loss that these signals are fitted with."""
        return loss_of(self.form)

    @property
    def sizes(self) -> tuple[int, int]:
        """Coordinates of a point and channels of a value."""
        return self.form.in_features, self.form.out_features

    def points(self, rows: slice | Tensor, num_points: int | None = None) -> SignalBatch:
        """Some signals at all their points, or at the first so many where they are on no grid.

        Args:
            rows: Which signals.
            num_points: Number of points; None for all.
        """
        indices = torch.arange(len(self))[rows]
        if self.form.grid is not None:
            return SignalBatch(indices, grid_coords(self.form.grid), self.values[indices], None)
        weights = None if self.weights is None else self.weights[indices, :num_points]
        return SignalBatch(indices, self.coords[indices, :num_points], self.values[indices, :num_points], weights)


def _columns(signals: Sequence[Signal]) -> tuple[list[Tensor], list[Tensor]]:
    return [signal.coords for signal in signals], [signal.values for signal in signals]


def coarse_grid(values: Tensor, grid: tuple[int, ...], resolution: float) -> tuple[Tensor, Tensor]:
    """Signals on a coarser grid, each cell the mean of those it covers.

    Args:
        values: Signals ``(N, P, C)`` on ``grid``.
        grid: Shape of the full grid.
        resolution: Share of the grid along each axis; at least two cells remain.

    Returns:
        Coordinates ``(P', D)`` and values ``(N, P', C)``.
    """
    coarse = tuple(max(min(n, 2), round(n * resolution)) for n in grid)
    if coarse == grid:
        return grid_coords(grid), values
    cells = values.mT.reshape(values.shape[0], values.shape[2], *grid)
    return grid_coords(coarse), F.interpolate(cells, size=coarse, mode="area").flatten(2).mT.contiguous()


class SignalBatches:
    """Shuffled batches of the stages, one pass: on coarse grids first, or at few random points of each signal.

    Args:
        examples: The signals.
        stages: Stages in order.
        generator: Randomness of the batches and of their points.
    """

    def __init__(self, examples: Examples, stages: Sequence[Stage], generator: torch.Generator):
        self.examples, self.stages, self.generator = examples, stages, generator

    def __len__(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def __iter__(self) -> Iterator[SignalBatch]:
        for stage in self.stages:
            batches = self._scattered if self.examples.form.grid is None else self._gridded
            yield from batches(stage)

    def _rows(self, stage: Stage) -> Iterator[Tensor]:
        """The signals of every step: all of them in random order, again and again."""
        order, num = torch.empty(0, dtype=torch.long), len(self.examples)
        size = min(stage.batch_size, num)
        for _ in range(stage.steps):
            if len(order) < size:
                order = torch.cat([order, torch.randperm(num, generator=self.generator)])
            rows, order = order[:size], order[size:]
            yield rows

    def _gridded(self, stage: Stage) -> Iterator[SignalBatch]:
        coords, values = coarse_grid(self.examples.values, self.examples.form.grid, stage.resolution)
        for rows in self._rows(stage):
            yield SignalBatch(rows, coords, values[rows], None)

    def _scattered(self, stage: Stage) -> Iterator[SignalBatch]:
        examples = self.examples
        num = examples.values.shape[1]
        size = max(1, round(num * stage.resolution))
        for rows in self._rows(stage):
            points = torch.randint(num, (len(rows), size), generator=self.generator)
            pairs = (rows.unsqueeze(1), points)
            weights = None if examples.weights is None else examples.weights[pairs]
            yield SignalBatch(rows, examples.coords[pairs], examples.values[pairs], weights)
