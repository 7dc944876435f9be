"""Two networks aligned: the permutation, the aligned weights, and loss and accuracy on the path before and after.

Letters: N examples, P points of the path.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.symmetry.matching.activations import match_activations
from wsrl.symmetry.matching.alignment_files import read_network
from wsrl.symmetry.matching.barriers import NUM_POINTS, NetworkScores, barrier, load_weights, path_losses
from wsrl.symmetry.matching.linear_stack import LinearStack
from wsrl.symmetry.matching.matching import Matching, agreement, check_same, match_weights
from wsrl.symmetry.matching.straight_through import RefinementOptions, refine_straight_through
from wsrl.symmetry.spec.spec import PermutationSpec

METHODS = ("weights", "activations", "straight-through")

Network = nn.Module | Mapping[str, Tensor] | str | Path
Examples = tuple[Tensor, Tensor]
Scores = Callable[[dict[str, Tensor]], tuple[float, float]]


@dataclass(frozen=True)
class PathScores:
    """What networks on the straight path do.

    Attributes:
        losses: Mean loss at every point, ``(P,)``.
        accuracies: Share of examples that are classified rightly, ``(P,)``; nan where there are no classes.
    """

    losses: np.ndarray
    accuracies: np.ndarray

    @property
    def barrier(self) -> float:
        """Most by which the loss exceeds the straight line between the ends."""
        return barrier(self.losses)

    @property
    def accuracy_barrier(self) -> float:
        """Most by which the accuracy falls below the straight line between the ends."""
        return barrier(-self.accuracies)


@dataclass(frozen=True)
class Alignment:
    """What was found.

    Attributes:
        permutation: Index tensors by permutation.
        aligned: The second network after it.
        objective: Inner products of the first network with the aligned one, or correlations of activations.
        objective_before: Inner products of the first network with the second as it was given.
        history: The objective of weight matching as it grew.
        before: The path from the first network to the second; None without examples.
        after: The path from the first network to the aligned one; None without examples.
    """

    permutation: dict[str, Tensor]
    aligned: dict[str, Tensor]
    objective: float
    objective_before: float
    history: tuple[float, ...]
    before: PathScores | None
    after: PathScores | None


def align_networks(
    reference: Network,
    moving: Network,
    *,
    network: nn.Module | None = None,
    spec: PermutationSpec | None = None,
    example_inputs: object = None,
    data: Examples | None = None,
    heldout: Examples | None = None,
    scores: Scores | None = None,
    method: str = "weights",
    num_points: int | None = NUM_POINTS,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    refinement: RefinementOptions | None = None,
) -> Alignment:
    """Move the units of one network to where those of another are, and look at the path between them.

    Args:
        reference: The network that stays: a module, a state dict or a safetensors file.
        moving: The network that is moved, in any of these forms.
        network: The module of both; not needed where one of them is a module or a plain stack of linear layers, which
            is then taken to have ReLU between its layers.
        spec: The symmetry; found by tracing the module if None.
        example_inputs: What the module is traced on: one tensor, a tuple or a dict of arguments. Without them ``data``
            serves, or zeros where the module begins with a linear layer.
        data: Training examples: inputs ``(N, ...)`` and classes ``(N,)``. Features, the straight-through gradient and
            running statistics come from them.
        heldout: Examples for the losses on the path; ``data`` if None.
        scores: From weights to loss and accuracy, in place of the module's on ``heldout``.
        method: ``weights``, ``activations`` or ``straight-through``.
        num_points: Points of the path; None for no losses on it.
        restarts: Starts of weight matching.
        generator: Randomness; None for a fixed seed.
        loss: From outputs and targets to a mean over examples; cross entropy (nats) if None.
        refinement: Options of straight-through refinement.

    Returns:
        The alignment; the aligned network computes what the second one does.

    Raises:
        UserError: Networks with different tensors, tensors that the spec does not know, a file that is no safetensors
            file, or a method that needs examples without them.
    """
    if method not in METHODS:
        raise UserError(f"the method is {method!r}", allowed=", ".join(METHODS))
    first, second = weights_of(reference), weights_of(moving)
    check_same(first, [second])
    network = network or next((given for given in (reference, moving) if isinstance(given, nn.Module)), None)
    if network is None and (spec is None or data is not None) and scores is None:
        network = LinearStack(first)
    if network is not None:
        load_weights(copy.deepcopy(network), first)
    spec = spec or spec_of(network, data[0][:2] if example_inputs is None and data is not None else example_inputs)
    found = _matched(method, spec, network, first, second, data, loss, generator, restarts, refinement)
    aligned = spec.apply(second, found.permutation)
    if num_points is None:
        scores = None
    elif scores is None and data is not None:
        inputs, targets = heldout or data
        scores = NetworkScores(network, inputs, targets, loss=loss, calibration=data[0])
    before, after = (
        None if scores is None else path_scores(scores, first, end, num_points) for end in (second, aligned)
    )
    before_matching = agreement(spec, first, second)
    return Alignment(found.permutation, aligned, found.objective, before_matching, found.history, before, after)


def weights_of(network: Network) -> dict[str, Tensor]:
    """The tensors of a module, a state dict or a safetensors file, detached.

    Raises:
        UserError: It is none of these.
    """
    if isinstance(network, nn.Module):
        network = network.state_dict()
    elif isinstance(network, (str, Path)):
        network = read_network(network)
    if not isinstance(network, Mapping) or not all(isinstance(tensor, Tensor) for tensor in network.values()):
        raise UserError(
            f"{type(network).__name__} is no network",
            allowed="a module, a state dict or the path of a safetensors file",
        )
    return {name: tensor.detach() for name, tensor in network.items()}


def spec_of(network: nn.Module | None, example_inputs: object = None) -> PermutationSpec:
    """The symmetry of a module, found by tracing it.

    Args:
        network: The module.
        example_inputs: What it takes; zeros where it begins with a linear layer and none are given.

    Raises:
        UserError: There are no example inputs, and zeros don't serve.
    """
    first = next((part for part in network.modules() if not list(part.children())), None) if network else None
    if example_inputs is None and isinstance(first, nn.Linear):
        example_inputs = first.weight.new_zeros(2, first.in_features)
    if example_inputs is None:
        raise UserError(
            "the symmetry of the networks is not known",
            allowed="a spec; or a module and examples to trace it with; or a plain stack of linear layers",
            do="give a spec, example_inputs or data (on the command line --spec or --data)",
        )
    return PermutationSpec.from_module(network, example_inputs)


def _matched(method, spec, network, first, second, data, loss, generator, restarts, refinement) -> Matching:
    if method == "weights":
        return match_weights(spec, first, second, generator=generator, restarts=restarts)
    if network is None or data is None:
        raise UserError(
            f"matching by {method} needs a module and examples",
            allowed="the method weights, or a module and data",
            do="give data (on the command line --data, and --network where the network is no plain stack)",
        )
    if method == "activations":
        return match_activations(spec, network, first, second, data[0], generator=generator)
    options = {"loss": loss, "options": refinement, "generator": generator, "restarts": restarts}
    return refine_straight_through(spec, network, first, second, *data, **options)


def path_scores(scores: Scores, first: Mapping[str, Tensor], last: Mapping[str, Tensor], num_points: int) -> PathScores:
    """Loss and accuracy at equally spaced points from one network to another."""
    found = path_losses(scores, first, last, num_points)
    return PathScores(found[:, 0], found[:, 1])
