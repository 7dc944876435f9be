"""Units of two networks assigned to each other: how well each pair goes together, and the best of all assignments.

Letters: B elements of what a permutation acts within (1 where it acts within nothing), n its units, m units of one that
acts within it, F features of a unit.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsrl.symmetry.matching.problem import MatchingProblem, Pieces


def best_assignment(agreement: Tensor) -> tuple[Tensor, Tensor]:
    """For matrices ``(..., n, n)`` the permutation of the largest sum, ``(..., n)``, and that sum, ``(...)``."""
    matrices = agreement.reshape(-1, *agreement.shape[-2:]).numpy()  # (B, n, n)
    columns = np.empty(matrices.shape[:2], dtype=np.int64)
    for row, matrix in zip(columns, matrices):
        row[:] = linear_sum_assignment(matrix, maximize=True)[1]
    sums = np.take_along_axis(matrices, columns[..., None], -1).sum((-1, -2))
    return torch.from_numpy(columns).reshape(agreement.shape[:-1]), torch.from_numpy(sums).reshape(agreement.shape[:-2])


def features(
    tensor: Tensor, axes: Sequence[str | None], batch: Sequence[int], own: Sequence[int], unsettled: set[str]
) -> Tensor:
    """What is known of units whatever the unsettled permutations are.

    Args:
        tensor: A piece.
        axes: What acts on its axes.
        batch: Axes that count separate problems.
        own: Axes that count units.
        unsettled: Permutations that are unknown yet: entries along their axes are sorted.

    Returns:
        ``(B, n, F)``.
    """
    rest = [axis for axis in range(tensor.ndim) if axis not in (*batch, *own)]
    aligned = [axis for axis in rest if axes[axis] not in unsettled]
    unordered = [axis for axis in rest if axes[axis] in unsettled]
    sizes = [int(np.prod([tensor.shape[axis] for axis in group])) for group in (batch, own, aligned, unordered)]
    arranged = tensor.permute(*batch, *own, *aligned, *unordered).reshape(sizes)  # (B, n, aligned, unordered)
    if unordered:
        arranged = arranged.sort(-1)[0]  # the same whatever the order of these was
    return arranged.reshape(sizes[0], sizes[1], -1)  # (B, n, F)


def _products(problem: MatchingProblem, pieces: Pieces, key: str, batch, own, unsettled: set[str]) -> Tensor:
    """Inner products of all units of a piece with those of the reference, ``(B, n, n)``."""
    axes = problem.axes[key]
    first = features(problem.reference[key], axes, batch, own, unsettled)
    second = features(pieces[key], axes, batch, own, unsettled)
    return first @ second.transpose(-1, -2)


def unit_agreement(problem: MatchingProblem, pieces: Pieces, name: str, unsettled: set[str]) -> tuple[Tensor, dict]:
    """How well each unit of the reference goes with each unit of the other network, all else as it stands.

    What acts within the units, as channels do within heads, is matched anew for every pair of units.

    Args:
        problem: The reference.
        pieces: The other network.
        name: The permutation of the units.
        unsettled: Permutations that are unknown yet; where ``name`` is one of them, its other axes are sorted too.

    Returns:
        Sums of inner products ``(B, n, n)``, and for what acts within the units its best tables ``(B, n, n, m)``.
    """
    size, inside = problem.spec.sizes[name], problem.descendants(name)
    total = torch.zeros(int(np.prod(problem.spec.table_shape(name)[:-1])), size, size, dtype=torch.float64)
    nested: dict[str, Tensor] = {}
    unsettled = unsettled | set(inside)
    for key in problem.carriers([name]):
        axes = problem.axes[key]
        batch = [axes.index(parent) for parent in problem.parents(name)]
        own = [axis for axis, carried in enumerate(axes) if carried == name]
        children = [carried for carried in axes if carried in inside]
        if len(children) == 1 and set(problem.parents(children[0])) == {name, *problem.parents(name)}:
            # units inside these units: all pairs (unit and inner unit) of the two networks
            pairs = _products(problem, pieces, key, batch, (own[0], axes.index(children[0])), unsettled)
            nested[children[0]] = nested.get(children[0], 0) + pairs  # (B, n m, n m)
            continue
        for axis in own:  # more than one where a tensor has the units on several axes
            total += _products(problem, pieces, key, batch, [axis], unsettled)
    # a pair of units agrees as well as the best assignment of what is inside them
    tables = {}
    for child, pairs in nested.items():
        blocks = pairs.reshape(
            len(total), size, problem.spec.sizes[child], size, problem.spec.sizes[child]
        )  # (B, n, m, n, m)
        tables[child], sums = best_assignment(blocks.transpose(2, 3).contiguous())  # (B, n, n, m), (B, n, n)
        total += sums
    return total, tables
