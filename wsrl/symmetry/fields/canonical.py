"""Many fields aligned to one template, so that neurons of the same index do the same in all of them.

The squared distance of each field to the template is made smaller by one linear assignment after the other, each over
the places, signs and half turns of the units of one axis, until none of them helps.

Letters: N fields, n units of one axis, F weights of a unit in one tensor.

Source: the descent is that of Ainsworth et al., Git Re-Basin, arXiv 2209.04836, section 3.2, with signs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.symmetry.fields.signed import SignedPermutation, SignedSymmetry
from wsrl.symmetry.matching.assignment import best_assignment
from wsrl.symmetry.spec.permute import Weights

ALIGNER_GAIN = 1e-9
"""Smallest gain that counts, relative to the squared norm of the template."""
MAX_ALIGNER_SWEEPS = 50
"""Rounds over all axes."""
PAIRS_AT_ONCE = 1 << 21
"""Pairs of units, over the fields that are aligned together; they bound the memory."""


@dataclass(frozen=True)
class FieldAlignment:
    """N fields aligned to a template.

    Attributes:
        moves: How their units move.
        distances: Weighted squared distance of each aligned field to the template, ``(N,)``.
        history: The distances at the start and after every sweep; no field's ever grows.
    """

    moves: SignedPermutation
    distances: Tensor
    history: tuple[Tensor, ...]


class Aligner:
    """Aligns fields to a template.

    Args:
        symmetry: How units may move.
        template: Weights ``shape`` of the template.
        importance: Factor on the squared distance of each tensor; one for those that are missing.
    """

    def __init__(
        self,
        symmetry: SignedSymmetry,
        template: Weights,
        *,
        importance: Mapping[str, float] | None = None,
    ):
        self.symmetry = symmetry
        self.template = {name: tensor.detach().to(torch.float64) for name, tensor in template.items()}
        self.importance = {name: float((importance or {}).get(name, 1.0)) for name in template}

    def align(self, weights: Weights) -> FieldAlignment:
        """Align fields ``(N, *shape)``, each from the better of two starts: as it is, and a greedy assignment.

        The greedy one settles axis after axis, and compares units by weights along settled axes alone.
        """
        exact = {name: tensor.detach().to(torch.float64) for name, tensor in weights.items()}
        size = max(1, PAIRS_AT_ONCE // max(self.symmetry.sizes.values()) ** 2)
        parts = zip(*(tensor.split(size) for tensor in exact.values()))
        return _joined([self._align(dict(zip(exact, part))) for part in parts])

    def _align(self, exact: Weights) -> FieldAlignment:
        num = len(next(iter(exact.values())))
        still = self.symmetry.still(num)
        greedy, unsettled = still, set(self.symmetry.sizes)
        for unit in self.symmetry.sizes:
            step = self._best_step(self.symmetry.apply(exact, greedy), unit, unsettled)
            greedy = greedy.then(unit, *step)
            unsettled.discard(unit)
        # of each field the start that is nearer
        before, after = (self.distance(self.symmetry.apply(exact, moves)) for moves in (still, greedy))
        nearer = (after < before).nonzero().squeeze(1)
        return self._descend(exact, still.replaced(nearer, greedy.at(nearer)), torch.minimum(before, after))

    def __call__(self, weights: Weights) -> dict[str, Tensor]:
        """Fields ``(N, *shape)`` of the same functions, aligned."""
        return self.symmetry.apply(weights, self.align(weights).moves)

    def distance(self, weights: Weights) -> Tensor:
        """Weighted squared distance ``(N,)`` of fields to the template."""
        parts = [
            self.importance[name] * (tensor.to(torch.float64) - self.template[name]).square().flatten(1).sum(1)
            for name, tensor in weights.items()
        ]
        return torch.stack(parts).sum(0)

    def _descend(self, exact: Weights, moves: SignedPermutation, distances: Tensor) -> FieldAlignment:
        """Improve one axis after the other until no axis of any field gains."""
        least = ALIGNER_GAIN * sum(self.importance[k] * float(t.square().sum()) for k, t in self.template.items())
        history, active = [distances], torch.arange(len(distances))
        for _ in range(MAX_ALIGNER_SWEEPS):
            # one sweep over the axes of the fields that the last one improved
            started, here = distances[active], moves.at(active)
            part, nearest = {name: tensor[active] for name, tensor in exact.items()}, started
            for unit in self.symmetry.sizes:
                step = here.then(unit, *self._best_step(self.symmetry.apply(part, here), unit, set()))
                distance = self.distance(self.symmetry.apply(part, step))
                gained = (distance < nearest - least).nonzero().squeeze(1)
                here, nearest = here.replaced(gained, step.at(gained)), nearest.index_copy(0, gained, distance[gained])
            moves, distances = moves.replaced(active, here), distances.index_copy(0, active, nearest)
            history.append(distances)
            active = active[nearest < started]
            if not len(active):
                break
        return FieldAlignment(moves, distances, tuple(history))

    def _best_step(self, weights: Weights, unit: str, unsettled: set[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Order, signs and half turns ``(N, n)`` of the units of one axis that bring fields nearest to the template.

        Weights along axes that are not settled, other than the unit's own, don't count.
        """
        incoming, outgoing, phase = self._agreements(weights, unit, unsettled)
        # for each choice of sign and parity: the agreement (N, n, n) of all pairs of units, and the half turns
        options = []
        for sign in (1, -1) if unit in self.symmetry.signed else (1,):
            if phase is None:
                options.append((sign, sign * (incoming + outgoing), torch.zeros(incoming.shape, dtype=torch.int64)))
                continue
            for parity in (0, 1):
                turns, near = phase(sign, parity)
                options.append((sign, sign * incoming + near + sign * (1 - 2 * parity) * outgoing, turns))
        # the best choice for each pair, and the assignment with the largest sum of these
        best, which = torch.stack([score for _, score, _ in options]).max(0)  # (N, n, n)
        order, _ = best_assignment(best)  # (N, n)
        which = which.gather(2, order.unsqueeze(2)).squeeze(2)  # (N, n)
        # the sign and the half turns of the pairs that were assigned
        turns = torch.stack([turns for _, _, turns in options])  # (options, N, n, n)
        turns = turns.gather(3, order[None, :, :, None].expand(len(options), -1, -1, 1)).squeeze(3)  # (options, N, n)
        turns = turns.gather(0, which.unsqueeze(0)).squeeze(0)  # (N, n)
        return order, torch.tensor([sign for sign, _, _ in options])[which], turns

    def _agreements(self, weights: Weights, unit: str, unsettled: set[str]) -> tuple[Tensor, Tensor, Callable | None]:
        """Inner products ``(N, n, n)`` of each unit of the template with each of the fields.

        Returns:
            Those of incoming weights, those of outgoing ones, and for sine neurons what :func:`_phases` gives. Where
            there are no phases, all are incoming.
        """
        layer = self.symmetry.sines.get(unit)
        size = self.symmetry.sizes[unit]
        incoming = torch.zeros(len(next(iter(weights.values()))), size, size, dtype=torch.float64)
        outgoing, phase = torch.zeros_like(incoming), None
        for name, tensor in weights.items():
            for axis, carried in enumerate(self.symmetry.axes[name]):
                others = [other for i, other in enumerate(self.symmetry.axes[name]) if i != axis]
                if carried != unit or unsettled.intersection(others):
                    continue
                if layer is not None and name == layer.bias:
                    phase = _phases(self.template[name], tensor, layer.omega, self.importance[name])
                    continue
                ours = self.template[name].movedim(axis, 0).reshape(size, -1)  # (n, F)
                theirs = tensor.movedim(axis + 1, 1).reshape(len(tensor), size, -1)  # (N, n, F)
                into = outgoing if layer is not None and name in layer.readers else incoming
                into += self.importance[name] * (ours @ theirs.mT)
        return incoming, outgoing, phase


def _joined(parts: list[FieldAlignment]) -> FieldAlignment:
    """The alignments of several runs of fields as one; those that ended earlier stay as they are."""
    longest = max(len(part.history) for part in parts)
    histories = [[*part.history, *[part.distances] * (longest - len(part.history))] for part in parts]
    first, *others = [part.moves for part in parts]
    history = tuple(torch.cat(step) for step in zip(*histories))
    return FieldAlignment(first.mapped(lambda *tensors: torch.cat(tensors), *others), history[-1], history)


def _phases(template: Tensor, biases: Tensor, omega: float, importance: float) -> Callable:
    """A function from sign and parity to the half turns ``(N, n, n)`` that bring biases nearest, and what they gain.

    No neuron is turned to a bias beyond one period: the larger a bias, the more its rounding shows in the function.
    """
    period = torch.pi / omega

    def phase(sign: int, parity: int) -> tuple[Tensor, Tensor]:
        bias = (sign * biases[:, None, :] / period).expand(-1, len(template), -1)  # (N, n, n), in half turns
        wanted = template[:, None] / period
        # as many half turns of this parity as bring the bias nearest, but to no bias beyond one period
        turns = 2 * torch.round((wanted - bias - parity) / 2) + parity
        least = 2 * torch.round((-bias - parity) / 2) + parity
        turns = torch.where((bias + turns).abs() > 1, least, turns)
        if parity == 0:  # to stand still rounds nothing
            turns = torch.where((bias - wanted).abs() <= (bias + turns - wanted).abs(), 0, turns)
        turned = (bias + turns) * period
        return turns.to(torch.int64), importance * (template[:, None] * turned - turned.square() / 2)

    return phase


def with_least_phases(symmetry: SignedSymmetry, weights: Weights) -> dict[str, Tensor]:
    """The same function, to rounding, with the phase of every sine neuron within a quarter turn of zero.

    Args:
        symmetry: How units may move.
        weights: Weights ``shape`` of one field.
    """
    # as many half turns as bring each phase nearest to zero
    batch = {name: tensor[None] for name, tensor in weights.items()}
    moves = symmetry.still(1)
    for unit, layer in symmetry.sines.items():
        turns = -torch.round(batch[layer.bias].to(torch.float64) * (layer.omega / torch.pi)).to(torch.int64)
        moves = moves.then(unit, moves.order[unit], moves.signs[unit], turns)
    return {name: tensor[0] for name, tensor in symmetry.apply(batch, moves).items()}


def mean_template(
    symmetry: SignedSymmetry,
    start: Weights,
    batches: Callable[[], Iterable[Weights]],
    *,
    rounds: int = 3,
    importance: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """The mean of fields that are aligned to it, by rounds of aligning and averaging.

    Args:
        symmetry: How units may move.
        start: Weights ``shape`` of the field that the first round aligns to.
        batches: Gives the fields ``(B, *shape)`` whose mean it is, once for each round.
        rounds: Number of rounds.
        importance: Factor on the squared distance of each tensor.

    Returns:
        Weights ``shape`` in float32.
    """
    template = with_least_phases(symmetry, start)
    for _ in range(rounds):
        # all fields aligned to the template, whose mean is the next template
        aligner, count = Aligner(symmetry, template, importance=importance), 0
        total = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in template.items()}
        for weights in batches():
            count += len(next(iter(weights.values())))
            for name, tensor in aligner(weights).items():
                total[name] += tensor.to(torch.float64).sum(0)
        template = {name: (tensor / count).to(torch.float32) for name, tensor in total.items()}
    return template
