"""Weight matching: the permutation of one network that makes its weights agree most with those of another.

The objective is the sum of the inner products of the reference with the moved network, over all tensors that a
permutation may move; maximising it is minimising the squared distance of the weights. Given all others, the best choice
of one permutation is a linear assignment, so that permutations are improved one after the other until none can be.

Letters: B elements of what a permutation acts within, n its units, m units of one that acts within it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.inference.inference import RUNNING
from wsrl.symmetry.matching.agreement import Pieces, Problem, best_assignment, unit_agreement
from wsrl.symmetry.matching.quadratic import refined
from wsrl.symmetry.spec.permute import composed
from wsrl.symmetry.spec.spec import PermutationSpec

TOLERANCE = 1e-11
"""Smallest gain that counts, relative to the product of the norms of the two networks."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Matching:
    """What was found.

    Attributes:
        permutation: Index tensors; ``spec.apply(moving, permutation)`` is the aligned network.
        objective: Sum of the inner products of the reference with the aligned network.
        history: The objective at the start and whenever it grew; it never falls.
    """

    permutation: dict[str, Tensor]
    objective: float
    history: tuple[float, ...]


def match_weights(
    spec: PermutationSpec,
    reference: Weights | Sequence[Weights],
    moving: Weights | Sequence[Weights],
    *,
    generator: torch.Generator | None = None,
    restarts: int = 1,
    max_sweeps: int = 100,
    frozen: Iterable[str] = (),
    start: Mapping[str, Tensor] | None = None,
) -> Matching:
    """Align one network with another by its permutation symmetry.

    Running statistics of normalisations move with their channels but do not count. The first start is the better one of
    the network as it stands and of a greedy assignment, which settles one permutation after the other and compares
    units by their sorted weights along axes that are not settled yet; it finds the permutation of a permuted copy.
    The second is the network as it stands, and all others are random.

    Args:
        spec: The symmetry. Its tensors that are not among the weights don't count.
        reference: Tensors ``shape`` of the network that stays; or several such dicts, such as means and deviations,
            whose agreement is summed.
        moving: The same of the network that is moved.
        generator: Randomness of orders and starts; None for a fixed seed.
        restarts: Number of starts; the best one is returned.
        max_sweeps: Most rounds over all permutations for each start.
        frozen: Permutations that are left as they are.
        start: The permutation to begin with, in place of all other starts.

    Returns:
        The permutation with the largest objective that was found, which is never below that of the first start.

    Raises:
        UserError: Weights with other keys or shapes than the spec's or the reference's, or that are not finite.

    Source: Ainsworth et al., Git Re-Basin, arXiv 2209.04836, section 3.2 and algorithm 1.
    """
    generator = generator or torch.Generator().manual_seed(0)
    spec, problem, pieces = prepare(spec, reference, moving)
    problem = replace(problem, frozen=_known_names(spec, frozen))
    free = [name for name in problem.sizes if name not in problem.frozen and problem.carriers([name])]
    best = None
    for number in range(1 if start is not None else max(restarts, 1)):
        state = _State.unmoved(problem, pieces)
        if start is not None:
            state = state.changed(start)
        elif number == 0:
            state = state.better_of(state.settled(free))
        elif number > 1:
            state = state.changed(spec.random_permutation(generator, names=free))
        found = _descend(state, free, generator, max_sweeps)
        best = found if best is None or found.objective > best.objective else best
    return Matching(best.permutation, best.objective, best.history)


def agreement(
    spec: PermutationSpec, reference: Weights | Sequence[Weights], moved: Weights | Sequence[Weights]
) -> float:
    """The objective of two networks as they stand: inner products of all tensors that a permutation may move."""
    _, problem, pieces = prepare(spec, reference, moved)
    return problem.objective(pieces)


def prepare(
    spec: PermutationSpec, reference: Weights | Sequence[Weights], moving: Weights | Sequence[Weights]
) -> tuple[PermutationSpec, Problem, Pieces]:
    """Check two networks and cut them into pieces; several dicts become one with an axis for them at the end."""
    references = [reference] if isinstance(reference, Mapping) else list(reference)
    movings = [moving] if isinstance(moving, Mapping) else list(moving)
    if len(references) != len(movings) or not references:
        raise UserError(f"{len(references)} and {len(movings)} dicts are matched", allowed="as many of both")
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
    counted = [name for name in names if name.rpartition(".")[2] not in RUNNING and any(spec.axes[name])]
    cut = [spec.cut({n: _as_numbers(n, [d[n] for d in dicts]) for n in counted}) for dicts in (references, movings)]
    cut = [{key: part for parts in of_tensors.values() for key, part in parts.items()} for of_tensors in cut]
    pieces = [piece for name in counted for piece in spec.pieces[name]]
    axes = {p.name: (*p.axes, *[None] * (cut[0][p.name].ndim - len(p.axes))) for p in pieces}
    carried = [key for key in axes if any(name in spec.sizes for name in axes[key])]
    own = [{key: of_tensors[key] for key in carried} for of_tensors in cut]
    problem = Problem({k: axes[k] for k in carried}, own[0], spec.within, spec.sizes, spec.held)
    return spec, problem, own[1]


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


def _as_numbers(name: str, tensors: Sequence[Tensor]) -> Tensor:
    """One float64 tensor ``(*shape, C)`` in place of several."""
    stacked = torch.stack([tensor.detach().cpu() for tensor in tensors], -1)
    stacked = torch.view_as_real(stacked).flatten(-2) if stacked.is_complex() else stacked
    stacked = stacked.to(torch.float64)
    if not torch.isfinite(stacked).all():
        raise UserError(f"{name} holds numbers that are not finite", allowed="finite weights", do="leave it out")
    return stacked


def _known_names(spec: PermutationSpec, names: Iterable[str]) -> frozenset[str]:
    names = frozenset([names] if isinstance(names, str) else names)
    unknown = sorted(names - set(spec.sizes))
    if unknown:
        raise UserError(f"frozen names {unknown[0]!r}", allowed=", ".join(spec.sizes), do="mend frozen")
    return names


@dataclass(frozen=True)
class _State:
    """A permutation and the network that it makes."""

    problem: Problem
    permutation: dict[str, Tensor]
    pieces: Pieces
    objective: float
    history: tuple[float, ...]

    @classmethod
    def unmoved(cls, problem: Problem, pieces: Pieces) -> "_State":
        still = {n: torch.arange(size).expand(problem.table_shape(n)) for n, size in problem.sizes.items()}
        objective = problem.objective(pieces)
        return cls(problem, still, pieces, objective, (objective,))

    def changed(self, step: Mapping[str, Tensor]) -> "_State":
        """The state after a further permutation; its history starts anew."""
        still = {n: torch.arange(table.shape[-1]).expand(table.shape) for n, table in self.permutation.items()}
        pieces = self.problem.moved(self.pieces, step)
        objective = self.problem.objective(pieces)
        together = composed({**still, **step}, self.permutation, self.problem.within, False)
        return _State(self.problem, together, pieces, objective, (objective,))

    def better_of(self, other: "_State") -> "_State":
        """The other state where it has the larger objective; its history begins with that of this one."""
        return replace(other, history=self.history + other.history) if other.objective > self.objective else self

    def settled(self, free: Sequence[str]) -> "_State":
        """Choose one permutation after the other, the one of which most is known first."""
        state, unsettled = self, set(free)
        while unsettled:
            name = max(
                (n for n in free if n in unsettled and not unsettled.intersection(self.problem.parents(n))),
                key=lambda n: _share_known(self.problem, n, unsettled),
            )
            state = state.changed(_assigned(state, name, unsettled))
            unsettled.discard(name)
        return state


def _share_known(problem: Problem, name: str, unsettled: set[str]) -> float:
    """Share of the weights of some units of which is known where along all other axes they belong."""
    known, total = 0, 0
    for key in problem.carriers([name]):
        others = list(problem.axes[key])
        others.remove(name)
        total += problem.reference[key].numel()
        known += 0 if unsettled.intersection(others) else problem.reference[key].numel()
    return known / total


def _assigned(state: _State, name: str, unsettled: set[str]) -> dict[str, Tensor]:
    """The step that makes the units of one permutation agree most, with those that act within them."""
    problem = state.problem
    agreement, nested = unit_agreement(problem, state.pieces, name, unsettled)
    chosen, _ = best_assignment(agreement)  # (B, n)
    step = {name: chosen.reshape(problem.table_shape(name))}
    for child, tables in nested.items():
        picked = tables.gather(2, chosen[:, :, None, None].expand(-1, -1, 1, tables.shape[-1])).squeeze(2)  # (B, n, m)
        lead = (*problem.parents(name), name)
        picked = picked.reshape(*problem.table_shape(name), -1)
        step[child] = picked.permute(*(lead.index(parent) for parent in problem.parents(child)), -1)
    return step


def _improved(state: _State, name: str) -> _State:
    """The best state found by choosing one permutation anew, and what acts within it."""
    problem = state.problem
    step = _assigned(state, name, set())
    found = state.changed(step)
    for child in problem.descendants(name):
        if child not in step:
            found = _improved(found, child)
    if problem.multiplicity(name) > 1 and found.objective <= state.objective:  # no assignment but a polynomial
        found = state.changed({name: refined(problem, state.pieces, name, step[name])})
    return max(state, found, key=lambda s: s.objective)


def _descend(state: _State, free: Sequence[str], generator: torch.Generator, max_sweeps: int) -> _State:
    """Improve permutations in random orders until none can be improved."""
    size = sum(float(t.square().sum()) for t in state.problem.reference.values())
    size *= sum(float(t.square().sum()) for t in state.pieces.values())
    history = list(state.history)
    for _ in range(max_sweeps):
        improved = False
        for index in torch.randperm(len(free), generator=generator).tolist():
            found = _improved(state, free[index])
            if found.objective > state.objective + TOLERANCE * size**0.5:
                state, improved = found, True
                history.append(state.objective)
        if not improved:
            break
    return replace(state, history=tuple(history))
