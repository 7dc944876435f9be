"""Posteriors aligned modulo permutation: the permutation, the distance, and marginalised losses before and after."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from wsrl.options import check_values, one_of
from wsrl.symmetry.matching.alignment import spec_of
from wsrl.symmetry.matching.barriers import EXAMPLES_AT_ONCE, NUM_POINTS
from wsrl.symmetry.matching.examples import Examples
from wsrl.symmetry.matching.linear_stack import LinearStack
from wsrl.symmetry.matching.matching import Matching, match_weights
from wsrl.symmetry.matching.posteriors import (
    MarginalisedPath,
    Posterior,
    check_alike,
    marginalised_path,
    squared_wasserstein,
)
from wsrl.symmetry.spec.spec import PermutationSpec

COSTS = ("means", "means_and_stds")
"""What alignment makes small: the distance of the means, or that of means and standard deviations."""


@dataclass(frozen=True)
class PosteriorAlignment:
    """Two posteriors aligned.

    Attributes:
        permutation: Index tensors by permutation.
        aligned: The second posterior after it.
        objective: Inner products of means and of standard deviations of the first posterior with the aligned one.
        distances: Squared 2-Wasserstein distances to the first posterior, before and after.
        before: The path from the first posterior to the second; None without examples.
        after: The path from the first posterior to the aligned one; None without examples.
    """

    permutation: dict[str, Tensor]
    aligned: Posterior
    objective: float
    distances: tuple[float, float]
    before: MarginalisedPath | None
    after: MarginalisedPath | None

    def metrics(self) -> dict[str, float]:
        """Plain values by dotted key; losses and barriers in nats."""
        before, after = self.distances
        metrics = {
            "align.squared_wasserstein_before": before,
            "align.squared_wasserstein_after": after,
            "align.objective": self.objective,
        }
        for when, path in (("before", self.before), ("after", self.after)):
            if path is not None:
                barrier = path.barrier()
                metrics[f"align.{when}.barrier"] = barrier.value
                metrics[f"align.{when}.barrier_stderr"] = barrier.standard_error
                metrics |= {f"align.{when}.loss.{point:03d}": float(loss) for point, loss in enumerate(path.losses)}
        return metrics


def align_posteriors(
    reference: Posterior,
    moving: Posterior,
    *,
    network: nn.Module | None = None,
    spec: PermutationSpec | None = None,
    example_inputs: object = None,
    examples: Examples | None = None,
    num_points: int = NUM_POINTS,
    num_samples: int = 32,
    restarts: int = 1,
    seed: int = 0,
) -> PosteriorAlignment:
    """Move the units of one posterior to where those of another are, and look at the path between them.

    Args:
        reference: The posterior that stays.
        moving: The posterior that is moved.
        network: The module of both; not needed for a plain stack of linear layers, which is then taken to have ReLU
            between its layers.
        spec: The symmetry; found by tracing the module if None.
        example_inputs: What the module is traced on; without them ``examples``, or zeros where a linear layer comes
            first.
        examples: Inputs ``(X, ...)`` and classes ``(X,)`` for the marginalised losses; None for no losses.
        num_points: Points of the path.
        num_samples: Samples of the weights at every point.
        restarts: Starts of weight matching.
        seed: Seed of the starts and of the samples.

    Raises:
        UserError: Posteriors of different networks, or a symmetry that is not known.
    """
    # the module and the symmetry of both
    if network is None and (spec is None or examples is not None):
        network = LinearStack(reference.means).eval()
    if spec is None:
        traced = examples[0][:2] if example_inputs is None and examples is not None else example_inputs
        spec = spec_of(network, traced)
    # the permutation that brings the two nearest, and how near
    generator = torch.Generator().manual_seed(seed)
    aligned, matching = align_posterior(spec, reference, moving, generator=generator, restarts=restarts)
    distances = tuple(squared_wasserstein(reference, each) for each in (moving, aligned))
    # marginalised losses on the geodesics to the second posterior as it was, and to the aligned one
    before = after = None
    if examples is not None:
        likelihood = class_log_likelihood(network, *examples)
        options = {"num_points": num_points, "num_samples": num_samples, "seed": seed}
        before, after = (marginalised_path(reference, each, likelihood, **options) for each in (moving, aligned))
    return PosteriorAlignment(matching.permutation, aligned, matching.objective, distances, before, after)


def class_log_likelihood(network: nn.Module, inputs: Tensor, classes: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    """A function from weights to the log-probability of the true class of every example, ``(X,)``."""

    def log_likelihood(weights: dict[str, Tensor]) -> Tensor:
        outputs = torch.cat([functional_call(network, weights, (part,)) for part in inputs.split(EXAMPLES_AT_ONCE)])
        return -functional.cross_entropy(outputs, classes, reduction="none")

    return log_likelihood


def align_posterior(
    spec: PermutationSpec,
    reference: Posterior,
    moving: Posterior,
    *,
    cost: str = "means_and_stds",
    generator: torch.Generator | None = None,
    restarts: int = 1,
) -> tuple[Posterior, Matching]:
    """Permute a posterior so that it comes close to another.

    Args:
        spec: Symmetry of the network.
        reference: Posterior that stays.
        moving: Posterior whose neurons are permuted.
        cost: ``means_and_stds`` for the Wasserstein distance, whose minimum is the maximum of the summed inner
            products of means and of standard deviations; ``means`` for that of the means alone.
        generator: Randomness of the order of the axes.
        restarts: Number of runs of coordinate ascent, of which the best is kept.

    Returns:
        The moved posterior, and the matching of the two.

    Raises:
        UserError: An unknown cost, or posteriors of different networks.
    """
    check_values({"cost": cost}, cost=one_of(*COSTS))
    check_alike(reference, moving)
    kinds = ("means", "stds") if cost == "means_and_stds" else ("means",)
    sides = [[getattr(each, kind) for kind in kinds] for each in (reference, moving)]
    matching = match_weights(spec, *sides, generator=generator, restarts=restarts)
    return moving.moved(spec, matching.permutation), matching
