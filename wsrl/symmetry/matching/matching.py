"""Weight matching: the permutation of one network that makes its weights agree most with those of another.

The objective is the sum of the inner products of the reference with the moved network, over all tensors that a
permutation may move; maximising it is minimising the squared distance of the weights. Given all others, the best choice
of one permutation is a linear assignment, so that permutations are improved one after the other until none can be.

Letters: B elements of what a permutation acts within, n its units, m units of one that acts within it.

Source: Ainsworth et al., Git Re-Basin, arXiv 2209.04836, section 3.2 and algorithm 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.matching.assignment import best_assignment, unit_agreement
from wsrl.symmetry.matching.problem import MatchingProblem, Pieces, prepare
from wsrl.symmetry.matching.quadratic import refined
from wsrl.symmetry.spec.permute import Permutation, Weights
from wsrl.symmetry.spec.spec import PermutationSpec

MATCHING_GAIN = 1e-11
"""Smallest gain that counts, relative to the product of the norms of the two networks."""
MAX_SWEEPS = 100
"""Rounds over all permutations from each start."""


@dataclass(frozen=True)
class Matching:
    """The permutation that makes one network agree with another.

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
    frozen: Iterable[str] = (),
    start: Permutation | None = None,
) -> Matching:
    """Align one network with another by its permutation symmetry.

    Running statistics of normalisations move with their channels but do not count.

    Args:
        spec: The symmetry. Its tensors that are not among the weights don't count.
        reference: Tensors ``shape`` of the network that stays; or several such dicts, such as means and standard
            deviations, whose agreement is summed.
        moving: The same of the network that is moved.
        generator: Randomness of orders and starts; None for a fixed seed.
        restarts: Number of starts; the best one is returned.
        frozen: Permutations that are left as they are.
        start: The permutation to begin with, in place of all other starts.

    Returns:
        The permutation with the largest objective that was found, which is never below that of the first start.

    Raises:
        UserError: Weights with other keys or shapes than the spec's or the reference's, or that are not finite.
    """
    generator = generator or torch.Generator().manual_seed(0)
    problem, pieces = prepare(spec, reference, moving)
    spec = problem.spec
    problem = replace(problem, frozen=_known_names(spec, frozen))
    free = [name for name in spec.sizes if name not in problem.frozen and problem.carriers([name])]
    ends = []
    for number in range(1 if start is not None else max(restarts, 1)):
        state = _State.unmoved(problem, pieces)
        if start is not None:
            state = state.changed(start)
        elif number == 0:  # as it stands, or greedy where that is better: this finds back a permuted copy
            state = state.better_of(state.settled(free))
        elif number > 1:  # the second start is the network as it stands, all others are random
            state = state.changed(spec.random_permutation(generator, names=free))
        ends.append(_descend(state, free, generator))
    best = max(ends, key=lambda state: state.objective)  # the first of equal ones
    return Matching(best.permutation, best.objective, best.history)


def agreement(
    spec: PermutationSpec, reference: Weights | Sequence[Weights], moved: Weights | Sequence[Weights]
) -> float:
    """The objective of two networks as they stand: inner products of all tensors that a permutation may move."""
    problem, pieces = prepare(spec, reference, moved)
    return problem.objective(pieces)


def _descend(state: "_State", free: Sequence[str], generator: torch.Generator) -> "_State":
    """Improve permutations in random orders until none can be improved."""
    size = sum(float(t.square().sum()) for t in state.problem.reference.values())
    size *= sum(float(t.square().sum()) for t in state.pieces.values())
    history = list(state.history)
    for _ in range(MAX_SWEEPS):
        improved = False
        for index in torch.randperm(len(free), generator=generator).tolist():
            better = _improved(state, free[index])
            if better.objective > state.objective + MATCHING_GAIN * size**0.5:
                state, improved = better, True
                history.append(state.objective)
        if not improved:
            break
    return replace(state, history=tuple(history))


def _improved(state: "_State", name: str) -> "_State":
    """The best state that choosing one permutation anew gives, with what acts within it."""
    problem = state.problem
    step = _assigned(state, name, set())
    better = state.changed(step)
    for child in problem.descendants(name):
        if child not in step:
            better = _improved(better, child)
    if problem.multiplicity(name) > 1 and better.objective <= state.objective:  # no assignment but a polynomial
        better = state.changed({name: refined(problem, state.pieces, name, step[name])})
    return max(state, better, key=lambda each: each.objective)


def _assigned(state: "_State", name: str, unsettled: set[str]) -> dict[str, Tensor]:
    """The step that makes the units of one permutation agree most, with those that act within them."""
    problem = state.problem
    agreements, nested = unit_agreement(problem, state.pieces, name, unsettled)  # (B, n, n), {child: (B, n, n, m)}
    order, _ = best_assignment(agreements)  # (B, n)
    step = {name: order.reshape(problem.spec.table_shape(name))}
    for child, tables in nested.items():
        # inside each unit the table of the pair that was chosen, with axes in the order of the child's parents
        inner = tables.gather(2, order[:, :, None, None].expand(-1, -1, 1, tables.shape[-1])).squeeze(2)  # (B, n, m)
        inner = inner.reshape(*problem.spec.table_shape(name), -1)  # (parents of name..., n, m)
        lead = (*problem.parents(name), name)
        step[child] = inner.permute(*(lead.index(parent) for parent in problem.parents(child)), -1)
    return step


def _known_names(spec: PermutationSpec, names: Iterable[str]) -> frozenset[str]:
    names = frozenset([names] if isinstance(names, str) else names)
    unknown = sorted(names - set(spec.sizes))
    if unknown:
        raise UserError(f"frozen names {unknown[0]!r}", allowed=", ".join(spec.sizes), do="mend frozen")
    return names


@dataclass(frozen=True)
class _State:
    """A permutation and the network that it makes."""

    problem: MatchingProblem
    permutation: dict[str, Tensor]
    pieces: Pieces
    objective: float
    history: tuple[float, ...]

    @classmethod
    def unmoved(cls, problem: MatchingProblem, pieces: Pieces) -> "_State":
        objective = problem.objective(pieces)
        return cls(problem, problem.spec.completed({}), pieces, objective, (objective,))

    def changed(self, step: Permutation) -> "_State":
        """The state after a further permutation; its history starts anew."""
        pieces = self.problem.moved(self.pieces, step)
        objective = self.problem.objective(pieces)
        together = self.problem.spec.compose(step, self.permutation)
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


def _share_known(problem: MatchingProblem, name: str, unsettled: set[str]) -> float:
    """Share of the weights of some units of which is known where along all other axes they belong."""
    known, total = 0, 0
    for key in problem.carriers([name]):
        others = list(problem.axes[key])
        others.remove(name)
        total += problem.reference[key].numel()
        known += 0 if unsettled.intersection(others) else problem.reference[key].numel()
    return known / total
