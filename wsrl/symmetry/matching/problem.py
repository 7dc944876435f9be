"""Two networks as what is matched: checked, and cut until every axis carries one permutation or none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.inference.network_tensors import RUNNING
from wsrl.symmetry.spec.permute import Permutation, Weights, move
from wsrl.symmetry.spec.spec import PermutationSpec

Pieces = dict[str, Tensor]


@dataclass(frozen=True)
class MatchingProblem:
    """A network that is to be resembled, cut until every axis carries one permutation or none.

    Attributes:
        spec: The symmetry of its tensors.
        axes: For each piece what acts on each of its axes.
        reference: The pieces of that network, in float64.
        frozen: Permutations that are left as they are.
    """

    spec: PermutationSpec
    axes: Mapping[str, tuple[str | None, ...]]
    reference: Pieces
    frozen: frozenset[str] = frozenset()

    def carriers(self, names: Iterable[str]) -> list[str]:
        """Pieces that any of some permutations acts on."""
        names = set(names)
        return [piece for piece, axes in self.axes.items() if names.intersection(axes)]

    def descendants(self, name: str) -> list[str]:
        """Permutations that act within one and are not frozen."""
        return [child for child, parents in self.spec.within.items() if name in parents and child not in self.frozen]

    def parents(self, name: str) -> tuple[str, ...]:
        """Permutations that one acts within."""
        return self.spec.within.get(name, ())

    def multiplicity(self, name: str) -> int:
        """Most axes of one piece that a permutation acts on: the degree of the objective in it."""
        return max((axes.count(name) for axes in self.axes.values()), default=0)

    def objective(self, pieces: Pieces) -> float:
        """Sum of the inner products with the reference."""
        return sum(float(torch.dot(self.reference[key].flatten(), piece.flatten())) for key, piece in pieces.items())

    def moved(self, pieces: Pieces, permutation: Permutation) -> Pieces:
        """The pieces after a permutation."""
        changed = {
            key: move(pieces[key], self.axes[key], permutation, self.spec.within, 0, False)
            for key in self.carriers(permutation)
        }
        return pieces | changed


def prepare(
    spec: PermutationSpec, reference: Weights | Sequence[Weights], moving: Weights | Sequence[Weights]
) -> tuple[MatchingProblem, Pieces]:
    """Check two networks and cut them into pieces; several dicts become one with an axis for them at the end."""
    references = [reference] if isinstance(reference, Mapping) else list(reference)
    movings = [moving] if isinstance(moving, Mapping) else list(moving)
    if len(references) != len(movings) or not references:
        raise UserError(f"{len(references)} and {len(movings)} dicts are matched", allowed="as many of both")
    # both have the same tensors, and the spec knows them; it may know more, which are left out of it
    names = list(references[0])
    check_same(references[0], [*references[1:], *movings])
    outside = [name for name in names if name not in spec.axes]
    if outside:
        raise UserError(
            f"the spec says nothing of {outside[0]!r}",
            allowed=", ".join(spec.axes),
            do="leave it out of both networks",
        )
    shapes = {name: tuple(references[0][name].shape) for name in names}
    spec = replace(spec, axes={name: spec.axes[name] for name in names}, shapes=shapes)
    # tensors that count: those that something acts on, without running statistics
    counted = [name for name in names if name.rpartition(".")[2] not in RUNNING and any(spec.axes[name])]
    sides = []
    for dicts in (references, movings):
        cut = spec.cut({name: _stacked(name, [each[name] for each in dicts]) for name in counted})
        sides.append({key: part for parts in cut.values() for key, part in parts.items()})  # (*piece shape, C)
    # what acts on the axes of each piece; nothing on those that count dicts and real and imaginary parts
    pieces = [piece for name in counted for piece in spec.pieces[name]]
    axes = {p.name: (*p.axes, *[None] * (sides[0][p.name].ndim - len(p.axes))) for p in pieces}
    # pieces of fixed axes alone are the same whatever moves
    carried = [key for key in axes if any(name in spec.sizes for name in axes[key])]
    kept = [{key: side[key] for key in carried} for side in sides]
    return MatchingProblem(spec, {key: axes[key] for key in carried}, kept[0]), kept[1]


def _stacked(name: str, tensors: Sequence[Tensor]) -> Tensor:
    """One float64 tensor ``(*shape, C)`` in place of several."""
    stacked = torch.stack([tensor.detach().cpu() for tensor in tensors], -1)  # (*shape, dicts)
    stacked = torch.view_as_real(stacked).flatten(-2) if stacked.is_complex() else stacked
    stacked = stacked.to(torch.float64)
    if not torch.isfinite(stacked).all():
        raise UserError(f"{name} holds numbers that are not finite", allowed="finite weights", do="leave it out")
    return stacked


def check_same(reference: Weights, others: Iterable[Weights]) -> None:
    """Refuse networks whose tensors have other names or shapes than the reference's.

    Raises:
        UserError: Names a tensor that differs.
    """
    for other in others:
        different = [name for name in (*reference, *other) if (name in reference) != (name in other)]
        if different:
            which = "second" if different[0] in reference else "first"
            raise UserError(
                f"the {which} network has no tensor {different[0]!r}, the other one has",
                allowed="two networks with the same tensors",
                do="choose two networks of one architecture",
            )
        for name, tensor in reference.items():
            if other[name].shape != tensor.shape:
                raise UserError(
                    f"{name!r} has shape {tuple(tensor.shape)} in the first network "
                    f"and {tuple(other[name].shape)} in the second",
                    allowed="two networks with tensors of the same shapes",
                    do="choose two networks of one architecture",
                )
