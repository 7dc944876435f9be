"""Points drawn by error: a step sees more of the points where its field is wrong, and weighs them less.

The mean of the weighted losses of all subsets is, in expectation, that of all points, and their gradient varies less
from subset to subset than that of evenly spread ones. What is drawn depends on the field's own errors alone.

Letters: B fields, P points, K subsets, Q points of a subset.
"""

import math

import torch
from torch import Tensor

EVENLY = 0.2
"""Share of the draws that goes to all points alike, which bounds the weights by its inverse."""
_MOST = 1 << 16
"""Errors become whole numbers up to this one: their sums are the same in any order, so on any number of threads."""


def along_a_curve(grid: tuple[int, ...] | None, num_points: int) -> Tensor:
    """Order ``(P,)`` of the points in which neighbours are near each other: Morton's on a grid, else their own.

    Args:
        grid: Shape of the regular grid that the points form in row-major order, or None.
        num_points: Number of points.
    """
    if grid is None:
        return torch.arange(num_points)
    places = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    code = torch.zeros(grid, dtype=torch.long)
    for bit in range(max(grid).bit_length()):
        for axis, place in enumerate(places):
            code |= ((place >> bit) & 1) << (bit * len(grid) + axis)
    return code.flatten().argsort()


def drawn_by(errors: Tensor, num_subsets: int) -> tuple[Tensor, Tensor]:
    """Points of every subset, and their weights.

    Equally spaced marks on the errors laid end to end choose the points; each subset takes every K-th mark.

    Args:
        errors: How wrong each field is at each point ``(B, P)``, zero or more.
        num_subsets: Subsets K.

    Returns:
        Places ``(B, K, Q)`` of points, and weights ``(B, K, Q)``: the inverse of how much likelier than evenly a point
        is drawn.
    """
    num, size = errors.shape[1], math.ceil(errors.shape[1] / num_subsets)
    # Chances as whole numbers: in proportion to the errors, and a share for all alike.
    errors = torch.where(errors.isfinite(), errors, 0.0)
    most = errors.amax(1, keepdim=True).clamp(min=torch.finfo(errors.dtype).tiny)
    chances = (errors / most * _MOST).long()  # (B, P)
    chances += chances.sum(1, keepdim=True) * round(1000 * EVENLY) // (round(1000 * (1 - EVENLY)) * num) + 1
    # Marks in the middles of as many equal parts as there are draws.
    ends = chances.cumsum(1)
    total, marks = ends[:, -1:], 2 * torch.arange(size * num_subsets, device=errors.device) + 1
    places = torch.searchsorted(ends, marks * total // (2 * len(marks)), right=True)  # (B, Q K)
    weights = total / (num * chances.gather(1, places))
    # One subset after the other takes marks that are far from those of the one before.
    strides = range(max(1, round(0.618 * num_subsets)), num_subsets + 1)
    stride = next(stride for stride in strides if math.gcd(stride, num_subsets) == 1)
    turn = torch.arange(num_subsets, device=errors.device) * stride % num_subsets
    places, weights = (tensor.unflatten(1, (size, num_subsets)).mT for tensor in (places, weights))
    return places[:, turn], weights[:, turn]


class Draws:
    """The subsets of every field in the slots.

    Attributes:
        places: Points ``(B, K, Q)`` of each subset.
        weights: Their weights ``(B, K, Q)`` in the loss.

    Args:
        num_slots: Slots.
        num_points: Points of a field.
        num_subsets: Subsets.
        grid: Grid of the points, or None.
        device: Where to compute.
    """

    def __init__(
        self,
        num_slots: int,
        num_points: int,
        num_subsets: int,
        grid: tuple[int, ...] | None,
        device: torch.device,
    ):
        self.num_subsets = num_subsets
        self._order = along_a_curve(grid, num_points).to(device)
        places, weights = drawn_by(torch.ones(1, num_points, device=device), num_subsets)
        self._evenly = self._order[places[0]].int()  # (K, Q)
        self.places = self._evenly.repeat(num_slots, 1, 1)
        self.weights = weights.repeat(num_slots, 1, 1)

    def begin(self, slot: int, weights: Tensor | None) -> None:
        """Spread the points of a new field evenly.

        Args:
            slot: Its slot.
            weights: Weights ``(P,)`` of its points, or None.
        """
        self.places[slot] = self._evenly
        self.weights[slot] = 1.0 if weights is None else weights[self._evenly.long()]

    def of(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``(B', Q)`` that the first fields see at their next step, and their weights ``(B', Q)``.

        Args:
            steps: Steps ``(B',)`` that they have taken.
        """
        fields = torch.arange(len(steps), device=steps.device)
        return self.places[fields, steps % self.num_subsets], self.weights[fields, steps % self.num_subsets]

    def again(self, slots: Tensor, errors: Tensor, weights: Tensor | None) -> None:
        """Draw the points of some fields by what is wrong now.

        Args:
            slots: Their slots ``(B',)``.
            errors: Errors ``(B', P)``.
            weights: Weights ``(B', P)`` of their points, or None.
        """
        errors = errors if weights is None else errors * weights
        places, factors = drawn_by(errors[:, self._order], self.num_subsets)
        places = self._order[places]
        if weights is not None:
            factors = factors * weights.gather(1, places.flatten(1)).view_as(places)
        self.places[slots], self.weights[slots] = places.int(), factors
