"""Permutations that act on several axes of one tensor: the objective is a polynomial in them, climbed by Frank-Wolfe.

Letters: B elements of what the permutation acts within, n its units, R all other entries of a piece.
"""

import numpy as np
import torch
from torch import Tensor

from wsrl.symmetry.matching.assignment import best_assignment
from wsrl.symmetry.matching.problem import MatchingProblem, Pieces

NUM_STEPS = 20
NUM_TRIED = 101
"""Lengths that are tried along a line."""


def refined(problem: MatchingProblem, pieces: Pieces, name: str, first: Tensor) -> Tensor:
    """Climb from the network as it stands over doubly stochastic matrices to a permutation that may agree more.

    Args:
        problem: The reference.
        pieces: The other network.
        name: The permutation.
        first: The direction to go first: the best assignment where the other axes stand still.

    Returns:
        An index tensor of the shape of the permutation's; it may be worse than standing still.

    Source: Vogelstein et al., Fast Approximate Quadratic Programming for Graph Matching, PLOS ONE 2015.
    """
    size, degree = problem.spec.sizes[name], problem.multiplicity(name)
    order = first.reshape(-1, size)  # (B, n)
    eye = torch.eye(size, dtype=torch.float64)
    mixture = eye.expand(len(order), size, size)  # (B, n, n), doubly stochastic: no unit moves at first
    lengths = np.linspace(0, 1, degree + 1)
    tried = np.linspace(0, 1, NUM_TRIED)
    for _ in range(NUM_STEPS):
        # along the line to the permutation the objective is a polynomial, which degree + 1 values tell
        target = eye[order]
        values = [_value(problem, pieces, name, mixture + t * (target - mixture)) for t in lengths]
        along = np.polyval(np.polyfit(lengths, np.array(values) - values[0], degree), tried)
        # go to its maximum; the next direction is the permutation that the slope there favours most
        length = tried[int(along.argmax())]
        if length == 0:
            break
        mixture = mixture + length * (target - mixture)
        order, _ = best_assignment(_slope(problem, pieces, name, mixture))
    return best_assignment(mixture)[0].reshape(problem.spec.table_shape(name))


def _value(problem: MatchingProblem, pieces: Pieces, name: str, mixture: Tensor) -> float:
    """The objective with the mixture in place of the permutation."""
    total = 0.0
    for key in problem.carriers([name]):
        carrying = [axis for axis, carried in enumerate(problem.axes[key]) if carried == name]
        mixed = _mixed(problem, pieces[key], key, name, mixture, carrying)
        total += float((problem.reference[key] * mixed).sum())
    return total


def _slope(problem: MatchingProblem, pieces: Pieces, name: str, mixture: Tensor) -> Tensor:
    """Derivative of the objective by the mixture, ``(B, n, n)``: for each axis that carries it, the others mixed."""
    slope = torch.zeros_like(mixture)
    for key in problem.carriers([name]):
        axes = problem.axes[key]
        carrying = [axis for axis, carried in enumerate(axes) if carried == name]
        for axis in carrying:
            mixed = _mixed(problem, pieces[key], key, name, mixture, [other for other in carrying if other != axis])
            order = [*(axes.index(parent) for parent in problem.parents(name)), axis]
            slope = slope + _flat(problem.reference[key], order) @ _flat(mixed, order).transpose(-1, -2)
    return slope


def _mixed(
    problem: MatchingProblem, tensor: Tensor, key: str, name: str, mixture: Tensor, carrying: list[int]
) -> Tensor:
    """A piece with the mixture in place of the permutation, on some of its axes."""
    for axis in carrying:
        order = [*(problem.axes[key].index(parent) for parent in problem.parents(name)), axis]
        order += [other for other in range(tensor.ndim) if other not in order]
        arranged = tensor.permute(order)
        flat = arranged.reshape(len(mixture), mixture.shape[-1], -1)  # (B, n, R)
        tensor = (mixture @ flat).reshape(arranged.shape).permute(*np.argsort(order).tolist())
    return tensor


def _flat(tensor: Tensor, first: list[int]) -> Tensor:
    """``(B, n, R)``: some axes first, the last of them counting units."""
    order = [*first, *(axis for axis in range(tensor.ndim) if axis not in first)]
    size = tensor.shape[first[-1]]
    lead = int(np.prod([tensor.shape[axis] for axis in first[:-1]]))
    return tensor.permute(order).reshape(lead, size, -1)  # (B, n, R)
