"""L-BFGS for several smooth convex problems at once, so that what they have in common is computed once.

Letters: L problems, A those of them that still run, D variables of a problem.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MEMORY = 10
MAX_STEPS = 500
MAX_HALVINGS = 20
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step has to reach (Armijo)."""

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def minimise(function: Function, start: Tensor, tolerance: float) -> Tensor:
    """The least points of problems that share a function, each as if it were alone but for rounding.

    Args:
        function: From points ``(A, D)`` and the numbers ``(A,)`` of their problems to values ``(A,)`` in float64, above
            zero, and slopes ``(A, D)``. The variables are scaled so that second derivatives are about one.
        start: Points ``(L, D)`` to start from.
        tolerance: A problem has been solved when half its squared slope, about what its value can still fall by, is at
            most this share of the value; or when no step along the slope lowers the value, or after ``MAX_STEPS``.

    Returns:
        Points ``(L, D)``.

    Source: Nocedal & Wright, Numerical optimization, algorithm 7.5, with a line search that halves.
    """
    found, problems, point = start.clone(), torch.arange(len(start)), start
    value, slope = function(point, problems)
    pairs: list[tuple[Tensor, Tensor]] = []  # steps and changes of the slope (A, D), the newest last
    for _ in range(MAX_STEPS):
        # Those that are solved leave.
        running = slope.double().square().sum(1) > 2 * tolerance * value
        found[problems[~running]] = point[~running]
        problems, point, value, slope = problems[running], point[running], value[running], slope[running]
        pairs = [(step[running], change[running]) for step, change in pairs]
        if not len(problems):
            return found
        # One step of each, and what it tells of the curvature.
        moved = _step(function, problems, point, value, slope, -_conditioned(slope, pairs))
        pairs = [*pairs, (moved[0] - point, moved[2] - slope)][-MEMORY:]
        stuck = (moved[0] == point).all(1)
        point, value, slope = moved
        slope = torch.where(stuck[:, None], 0.0, slope)  # it leaves in the next round
    found[problems] = point
    return found


def _conditioned(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The slopes ``(A, D)`` times the estimate of the inverse of the second derivatives: the two loops of L-BFGS."""
    vector, passed = slope, []
    for step, change in reversed(pairs):
        # A pair without curvature, as rounding leaves it, has no say.
        curvature = (step * change).sum(1, keepdim=True)
        weight = torch.where(curvature > 0, 1 / curvature, 0.0)
        share = weight * (step * vector).sum(1, keepdim=True)
        passed.append((weight, share))
        vector = vector - share * change
    if pairs:
        step, change = pairs[-1]
        scale = (step * change).sum(1, keepdim=True) / change.square().sum(1, keepdim=True)
        vector = vector * torch.where(scale > 0, scale, 1.0)
    for (step, change), (weight, share) in zip(pairs, reversed(passed)):
        vector = vector + step * (share - weight * (change * vector).sum(1, keepdim=True))
    return vector


def _step(
    function: Function, problems: Tensor, point: Tensor, value: Tensor, slope: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, values and slopes after a step of each problem; where none lowers the value, those before it."""
    point, value, slope, begin, before = point.clone(), value.clone(), slope.clone(), point, value
    promised = (slope * direction).double().sum(1)  # (A,) below zero
    size, waiting = torch.ones(len(point), 1), torch.arange(len(point))
    for _ in range(MAX_HALVINGS):
        tried = begin[waiting] + size[waiting] * direction[waiting]
        values, slopes = function(tried, problems[waiting])
        enough = values <= before[waiting] + SUFFICIENT * size[waiting, 0] * promised[waiting]
        done = waiting[enough]
        point[done], value[done], slope[done] = tried[enough], values[enough], slopes[enough]
        if enough.all():
            break
        # The least point of the parabola through both values and the first slope, a tenth of the step at least.
        lengths, slopes_along = size[waiting, 0].double(), promised[waiting]
        above = values - before[waiting] - lengths * slopes_along
        least = -slopes_along * lengths.square() / (2 * above)
        size[waiting, 0] = torch.clamp(least, 0.1 * lengths, 0.5 * lengths).float()
        waiting = waiting[~enough]
    return point, value, slope
