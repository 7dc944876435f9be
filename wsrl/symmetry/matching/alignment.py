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
from wsrl.options import check_values, one_of
from wsrl.symmetry.matching import MATCHING_METHODS
from wsrl.symmetry.matching.activations import match_activations
from wsrl.symmetry.matching.alignment_files import read_network
from wsrl.symmetry.matching.barriers import NUM_POINTS, NetworkScores, barrier, load_weights, path_losses
from wsrl.symmetry.matching.examples import Examples
from wsrl.symmetry.matching.linear_stack import LinearStack
from wsrl.symmetry.matching.matching import Matching, agreement, match_weights
from wsrl.symmetry.matching.problem import check_same
from wsrl.symmetry.matching.straight_through import RefinementOptions, refine_straight_through
from wsrl.symmetry.spec.permute import Weights
from wsrl.symmetry.spec.spec import PermutationSpec

Network = nn.Module | Weights | str | Path
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
class NetworkAlignment:
    """Two networks aligned.

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

    def metrics(self) -> dict[str, float]:
        """Plain values by dotted key."""
        moved = [table != torch.arange(table.shape[-1]) for table in self.permutation.values()]
        metrics = {
            "align.objective": self.objective,
            "align.agreement_before": self.objective_before,
            "align.moved_units": sum(int(table.sum()) for table in moved),
            "align.units": sum(table.numel() for table in moved),
        }
        for when, path in (("before", self.before), ("after", self.after)):
            if path is None:
                continue
            metrics |= {f"align.{when}.barrier": path.barrier, f"align.{when}.accuracy_barrier": path.accuracy_barrier}
            for point, (loss, accuracy) in enumerate(zip(path.losses, path.accuracies)):
                metrics[f"align.{when}.loss.{point:03d}"] = float(loss)
                metrics[f"align.{when}.accuracy.{point:03d}"] = float(accuracy)
        return metrics


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
) -> NetworkAlignment:
    """Move the units of one network to where those of another are, and look at the path between them.

    Args:
        reference: The network that stays: a module, a state dict or a safetensors file.
        moving: The network that is moved, in any of these forms.
        network: The module of both; not needed where one of them is a module or a plain stack of linear layers, which
            is then taken to have ReLU between its layers.
        spec: The symmetry; found by tracing the module if None.
        example_inputs: What the module is traced on; without them ``data``, or zeros where a linear layer comes first.
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
    check_values({"method": method}, method=one_of(*MATCHING_METHODS))
    # the two networks, and the module of both
    first, second = weights_of(reference), weights_of(moving)
    check_same(first, [second])
    is_needed = scores is None and (spec is None or data is not None)
    network = _module_of(network, (reference, moving), first, is_needed)
    # what may move, and where the method moves it
    spec = spec or spec_of(network, data[0][:2] if example_inputs is None and data is not None else example_inputs)
    options = {"generator": generator, "restarts": restarts, "loss": loss, "options": refinement}
    matching = _matched(method, spec, network, first, second, data, options)
    # what is lost on the straight path to the second network, before and after
    if scores is None and data is not None and num_points is not None:
        scores = NetworkScores(network, *(heldout or data), loss=loss, calibration=data[0])
    return _scored(spec, first, second, matching, scores, num_points)


def _module_of(
    network: nn.Module | None, sides: tuple[Network, Network], weights: Weights, is_needed: bool
) -> nn.Module | None:
    """The module of both networks, into which the weights are known to fit."""
    network = network or next((side for side in sides if isinstance(side, nn.Module)), None)
    network = network or (LinearStack(weights) if is_needed else None)
    if network is not None:
        load_weights(copy.deepcopy(network), weights)
    return network


def _scored(spec, first, second, matching: Matching, scores: Scores | None, num_points) -> NetworkAlignment:
    """The alignment that a matching makes; its paths are None without scores or points."""
    aligned = spec.apply(second, matching.permutation)
    ends = () if scores is None or num_points is None else (second, aligned)
    before, after = [path_scores(scores, first, end, num_points) for end in ends] or (None, None)
    unmoved = agreement(spec, first, second)
    return NetworkAlignment(matching.permutation, aligned, matching.objective, unmoved, matching.history, before, after)


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


def _matched(method, spec, network, first, second, data, options: dict) -> Matching:
    """What a method of ``MATCHING_METHODS`` finds; options are those of :func:`refine_straight_through`."""
    if method == "weights":
        return match_weights(spec, first, second, generator=options["generator"], restarts=options["restarts"])
    if network is None or data is None:
        raise UserError(
            f"matching by {method} needs a module and examples",
            allowed="the method weights, or a module and data",
            do="give data (on the command line --data, and --network where the network is no plain stack)",
        )
    if method == "activations":
        return match_activations(spec, network, first, second, data[0], generator=options["generator"])
    return refine_straight_through(spec, network, first, second, *data, **options)


def path_scores(scores: Scores, first: Weights, last: Weights, num_points: int) -> PathScores:
    """Loss and accuracy at equally spaced points from one network to another."""
    losses, accuracies = path_losses(scores, first, last, num_points).T  # (2, P)
    return PathScores(losses, accuracies)
