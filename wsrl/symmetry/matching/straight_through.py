"""Straight-through refinement: a permutation that is trained for the loss half way between two networks.

Letters: N examples.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from wsrl.options import POSITIVE, at_least, check, option
from wsrl.symmetry.matching.barriers import NetworkScores, interpolate, load_weights, running_parts
from wsrl.symmetry.matching.matching import Matching, agreement, match_weights
from wsrl.symmetry.spec.permute import Permutation, Weights
from wsrl.symmetry.spec.spec import PermutationSpec


@dataclass(frozen=True, kw_only=True)
class RefinementOptions:
    """How a permutation is trained.

    Attributes:
        num_steps: Steps of the optimiser.
        batch_size: Examples of a step.
        learning_rate: Of Adam.
        check_every: Steps between two looks at the loss half way, of which the least one decides.
        num_checked: Examples that a look takes, the first ones.
    """

    num_steps: int = option(100, at_least(0))
    batch_size: int = option(500, at_least(1))
    learning_rate: float = option(1e-3, POSITIVE)
    check_every: int = option(5, at_least(1))
    num_checked: int = option(5000, at_least(1))

    def __post_init__(self):
        check(self, "refinement.")


@dataclass(frozen=True)
class Refinement(Matching):
    """A matching that was refined.

    Attributes:
        losses: Least loss half way between the networks so far, at each look; the first one is that of weight matching.
    """

    losses: tuple[float, ...] = ()


def refine_straight_through(
    spec: PermutationSpec,
    module: nn.Module,
    reference: Weights,
    moving: Weights,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    options: RefinementOptions | None = None,
    generator: torch.Generator | None = None,
    restarts: int = 1,
) -> Refinement:
    """Align one network with another for a low loss half way between them, from weight matching on.

    A third network stands for the permutation: the moved network is matched with it. Of all permutations on the way
    the one with the least loss half way is kept.

    Args:
        spec: The symmetry.
        module: The module of both networks; a copy of it is used.
        reference: Weights of the network that stays.
        moving: Weights of the network that is moved.
        inputs: Training examples ``(N, ...)``.
        targets: Classes ``(N,)``, or what ``loss`` takes.
        loss: From outputs and targets to a mean over examples; cross entropy if None.
        options: How it is trained.
        generator: Randomness of batches and matchings; None for a fixed seed.
        restarts: Starts of the weight matching that it begins with.

    Returns:
        The permutation, with its objective, and the history of the weight matching that it began with.

    Source: Ainsworth et al., Git Re-Basin, arXiv 2209.04836, section 3.3 and algorithm 3.
    """
    options = options or RefinementOptions()
    generator = generator or torch.Generator().manual_seed(0)
    loss = functional.cross_entropy if loss is None else loss
    scores = NetworkScores(module, inputs[: options.num_checked], targets[: options.num_checked], loss=loss)

    def midpoint_loss(permutation: Permutation) -> float:
        return scores(interpolate(reference, spec.apply(moving, permutation), 0.5))[0]

    # the third network starts as the reference, so that the first permutation is that of weight matching
    matching = best = match_weights(spec, reference, moving, generator=generator, restarts=restarts)
    losses, history = [midpoint_loss(best.permutation)], best.history
    third = _ThirdNetwork(module, reference, loss, options.learning_rate)
    for step in range(1, options.num_steps + 1):
        # the gradient half way to the moved network is taken as if that were the third network, which makes a step
        batch = torch.randint(len(inputs), (options.batch_size,), generator=generator)
        third.step(spec.apply(moving, matching.permutation), inputs[batch], targets[batch])
        # the moved network is matched with the third one, from the permutation of the step before
        matching = match_weights(spec, third.weights(), moving, generator=generator, start=matching.permutation)
        if step % options.check_every == 0 or step == options.num_steps:
            now = midpoint_loss(matching.permutation)
            best = matching if now < losses[-1] else best
            losses.append(min(now, losses[-1]))
    objective = agreement(spec, reference, spec.apply(moving, best.permutation))
    return Refinement(best.permutation, objective, history, tuple(losses))


class _ThirdNetwork:
    """The network that stands for the permutation: what is matched with it is what the permutation is."""

    def __init__(self, module: nn.Module, reference: Weights, loss: Callable, learning_rate: float):
        self.module = copy.deepcopy(module).eval()
        load_weights(self.module, reference)
        for part in running_parts(self.module):
            part.train()  # the statistics of a batch: there are no others half way
        self.reference, self.loss = dict(reference), loss
        names = [name for name, _ in self.module.named_parameters()]  # tied ones once
        tied = {name for name, _ in self.module.named_parameters(remove_duplicate=False)} - set(names)
        self.fixed = {name: tensor for name, tensor in reference.items() if name not in names and name not in tied}
        self.free = {name: reference[name].detach().clone().requires_grad_() for name in names}
        self.optimiser = torch.optim.Adam(self.free.values(), lr=learning_rate)

    def weights(self) -> dict[str, Tensor]:
        """Its tensors; buffers are those of the reference."""
        return self.reference | {name: tensor.detach() for name, tensor in self.free.items()}

    def step(self, moved: Weights, inputs: Tensor, targets: Tensor) -> None:
        """One step for the loss half way between the reference and the moved network."""
        middle = {name: tensor.clone() for name, tensor in self.fixed.items()}  # statistics are written in place
        for name, tensor in self.free.items():
            projected = tensor + (moved[name] - tensor).detach()  # its value is the moved one, its gradient the own one
            middle[name] = (self.reference[name] + projected) / 2
        self.optimiser.zero_grad()
        self.loss(functional_call(self.module, middle, (inputs,)), targets).backward()
        self.optimiser.step()
