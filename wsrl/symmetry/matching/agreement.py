"""How well the units of two networks agree: what the assignments of weight matching maximise.

Letters: B elements of what a permutation acts within (1 where it acts within nothing), n its units, m units of one that
acts within it, F features of a unit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsrl.symmetry.spec.permute import move

Pieces = dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """A network that is to be resembled, cut until every axis carries one permutation or none.

    Attributes:
        axes: For each piece what acts on each of its axes.
        reference: The pieces of that network, in float64.
        within: For a permutation that acts inside the elements of others, those others.
        sizes: Number of elements of each permutation.
        held: Axes that stay fixed and that something acts within, with their numbers of elements.
        frozen: Permutations that are left as they are.
    """

    axes: Mapping[str, tuple[str | None, ...]]
    reference: Pieces
    within: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, int]
    held: Mapping[str, int] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()

    def carriers(self, names: Iterable[str]) -> list[str]:
        """Pieces that any of some permutations acts on."""
        names = set(names)
        return [piece for piece, axes in self.axes.items() if names.intersection(axes)]

    def descendants(self, name: str) -> list[str]:
        """Permutations that act within one and are not frozen."""
        return [child for child, parents in self.within.items() if name in parents and child not in self.frozen]

    def parents(self, name: str) -> tuple[str, ...]:
        """Permutations that one acts within."""
        return self.within.get(name, ())

    def table_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the index tensor of a permutation."""
        lengths = {**self.sizes, **self.held}
        return (*(lengths[parent] for parent in self.parents(name)), self.sizes[name])

    def multiplicity(self, name: str) -> int:
        """Most axes of one piece that a permutation acts on: the degree of the objective in it."""
        return max((axes.count(name) for axes in self.axes.values()), default=0)

    def objective(self, pieces: Pieces, names: Iterable[str] | None = None) -> float:
        """Sum of the inner products with the reference, of all pieces or of those that some permutations act on."""
        chosen = pieces if names is None else self.carriers(names)
        return sum(float(torch.dot(self.reference[key].flatten(), pieces[key].flatten())) for key in chosen)

    def moved(self, pieces: Pieces, permutation: Mapping[str, Tensor]) -> Pieces:
        """The pieces after a permutation."""
        changed = {
            key: move(pieces[key], self.axes[key], permutation, self.within, 0, False)
            for key in self.carriers(permutation)
        }
        return pieces | changed


def best_assignment(agreement: Tensor) -> tuple[Tensor, Tensor]:
    """For matrices ``(..., n, n)`` the permutation of the largest sum, ``(..., n)``, and that sum, ``(...)``."""
    matrices = agreement.reshape(-1, *agreement.shape[-2:]).numpy()
    columns = np.stack([linear_sum_assignment(matrix, maximize=True)[1] for matrix in matrices])
    sums = np.take_along_axis(matrices, columns[..., None], -1).sum((-1, -2))
    lead = agreement.shape[:-2]
    return torch.from_numpy(columns).reshape(*lead, -1), torch.from_numpy(sums).reshape(lead)


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
    arranged = tensor.permute(*batch, *own, *aligned, *unordered).reshape(sizes)
    if unordered:
        arranged = arranged.sort(-1)[0]
    return arranged.reshape(sizes[0], sizes[1], -1)


def _products(problem: Problem, pieces: Pieces, key: str, batch, own, unsettled: set[str]) -> Tensor:
    """Inner products of all units of a piece with those of the reference, ``(B, n, n)``."""
    axes = problem.axes[key]
    first = features(problem.reference[key], axes, batch, own, unsettled)
    second = features(pieces[key], axes, batch, own, unsettled)
    return first @ second.transpose(-1, -2)


def unit_agreement(problem: Problem, pieces: Pieces, name: str, unsettled: set[str]) -> tuple[Tensor, dict]:
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
    size, inside = problem.sizes[name], problem.descendants(name)
    total = torch.zeros(int(np.prod(problem.table_shape(name)[:-1])), size, size, dtype=torch.float64)
    nested: dict[str, Tensor] = {}
    unsettled = unsettled | set(inside)
    for key in problem.carriers([name]):
        axes = problem.axes[key]
        batch = [axes.index(parent) for parent in problem.parents(name)]
        places = [axis for axis, carried in enumerate(axes) if carried == name]
        found = [carried for carried in axes if carried in inside]
        if len(found) == 1 and set(problem.parents(found[0])) == {name, *problem.parents(name)}:
            own = (places[0], axes.index(found[0]))
            product = _products(problem, pieces, key, batch, own, unsettled)
            nested[found[0]] = nested.get(found[0], 0) + product
            continue
        for place in places:
            total += _products(problem, pieces, key, batch, [place], unsettled)
    tables = {}
    for child, product in nested.items():
        blocks = product.reshape(len(total), size, problem.sizes[child], size, problem.sizes[child])
        tables[child], sums = best_assignment(blocks.transpose(2, 3).contiguous())
        total += sums
    return total, tables
