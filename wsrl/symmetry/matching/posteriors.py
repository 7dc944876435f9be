"""Gaussian posteriors over weights: their distance and their geodesic."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.spec.spec import Permutation, PermutationSpec


@dataclass(frozen=True)
class Posterior:
    """Independent Gaussians over the entries of a network's tensors.

    Attributes:
        means: Mean of each tensor.
        deviations: Standard deviation of each tensor, at least zero, under the same names and shapes.

    Raises:
        UserError: Names or shapes differ, or a deviation is negative or not a number.
    """

    means: Mapping[str, Tensor]
    deviations: Mapping[str, Tensor]

    def __post_init__(self):
        means, deviations = dict(self.means), dict(self.deviations)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "deviations", deviations)
        wrong = sorted(means.keys() ^ deviations.keys())
        wrong += [name for name in means if not wrong and means[name].shape != deviations[name].shape]
        if wrong:
            raise UserError(f"{wrong[0]} has no mean and deviation of one shape", allowed="both for every tensor")
        for name, deviation in deviations.items():
            if not bool((deviation >= 0).all()):
                raise UserError(f"a deviation of {name} is negative or not a number", allowed="at least zero")

    def noise(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Independent standard normal numbers in the shapes of the tensors."""
        return {
            name: torch.randn(mean.shape, generator=generator, dtype=mean.dtype) for name, mean in self.means.items()
        }

    def at(self, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that standard normal noise stands for: ``mean + deviation * noise``."""
        return {name: torch.addcmul(mean, self.deviations[name], noise[name]) for name, mean in self.means.items()}

    def sample(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Weights drawn from the posterior."""
        return self.at(self.noise(generator))

    def moved(self, spec: PermutationSpec, permutation: Permutation) -> "Posterior":
        """The posterior of the permuted network: means and deviations move alike."""
        return Posterior(spec.apply(self.means, permutation), spec.apply(self.deviations, permutation))


def check_alike(first: Posterior, second: Posterior) -> None:
    """Refuse posteriors of different networks.

    Raises:
        UserError: A tensor is missing in one of them or has another shape.
    """
    shapes = [{name: tuple(mean.shape) for name, mean in each.means.items()} for each in (first, second)]
    for name in [*shapes[0], *shapes[1]]:
        if shapes[0].get(name) != shapes[1].get(name):
            raise UserError(
                f"{name} has the shape {shapes[0].get(name)} in one posterior and {shapes[1].get(name)} in the other",
                allowed="posteriors over the same network",
            )


def squared_wasserstein(first: Posterior, second: Posterior) -> float:
    """Squared 2-Wasserstein distance, ``||m_a - m_b||^2 + ||s_a - s_b||^2``.

    Source: arXiv 2310.10171, section 3; exact for Gaussians with diagonal covariances.
    """
    check_alike(first, second)
    pairs = [(first.means, second.means), (first.deviations, second.deviations)]
    return sum(float((a[name].double() - b[name].double()).square().sum()) for a, b in pairs for name in a)


def geodesic(first: Posterior, second: Posterior, time: float) -> Posterior:
    """The point of the Wasserstein geodesic at ``time`` in [0, 1]: linear in means and in deviations."""
    check_alike(first, second)
    ends = [(first.means, second.means), (first.deviations, second.deviations)]
    return Posterior(*({name: torch.lerp(a[name], b[name], time) for name in a} for a, b in ends))
