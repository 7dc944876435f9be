"""Gaussian posteriors over weights: their distance, their geodesic, and losses that are marginalised along it.

Letters: X examples, K samples of the weights, T points of a path.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.matching.barriers import NUM_POINTS
from wsrl.symmetry.spec.permute import Permutation
from wsrl.symmetry.spec.spec import PermutationSpec


@dataclass(frozen=True)
class Posterior:
    """Independent Gaussians over the entries of a network's tensors.

    Attributes:
        means: Mean of each tensor.
        stds: Standard deviation of each tensor, at least zero, under the same names and shapes.

    Raises:
        UserError: Names or shapes differ, or a standard deviation is negative or not a number.
    """

    means: Mapping[str, Tensor]
    stds: Mapping[str, Tensor]

    def __post_init__(self):
        means, stds = dict(self.means), dict(self.stds)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "stds", stds)
        wrong = sorted(means.keys() ^ stds.keys())
        wrong += [name for name in means if not wrong and means[name].shape != stds[name].shape]
        if wrong:
            raise UserError(
                f"{wrong[0]} has no mean and standard deviation of one shape", allowed="both for every tensor"
            )
        for name, std in stds.items():
            if not bool((std >= 0).all()):
                raise UserError(f"a standard deviation of {name} is negative or not a number", allowed="at least zero")

    def noise(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Independent standard normal numbers in the shapes of the tensors."""
        return {
            name: torch.randn(mean.shape, generator=generator, dtype=mean.dtype) for name, mean in self.means.items()
        }

    def at(self, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that standard normal noise stands for: ``mean + standard deviation * noise``."""
        return {name: torch.addcmul(mean, self.stds[name], noise[name]) for name, mean in self.means.items()}

    def sample(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Weights drawn from the posterior."""
        return self.at(self.noise(generator))

    def moved(self, spec: PermutationSpec, permutation: Permutation) -> "Posterior":
        """The posterior of the permuted network: means and standard deviations move alike."""
        return Posterior(spec.apply(self.means, permutation), spec.apply(self.stds, permutation))


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
    pairs = [(first.means, second.means), (first.stds, second.stds)]
    return sum(float((a[name].double() - b[name].double()).square().sum()) for a, b in pairs for name in a)


def geodesic(first: Posterior, second: Posterior, time: float) -> Posterior:
    """The point of the Wasserstein geodesic at ``time`` in [0, 1]: linear in means and in standard deviations."""
    check_alike(first, second)
    ends = [(first.means, second.means), (first.stds, second.stds)]
    return Posterior(*({name: torch.lerp(a[name], b[name], time) for name in a} for a, b in ends))


def marginal(log_likelihoods: Tensor) -> tuple[Tensor, Tensor]:
    """Marginalised loss, ``-mean_x log mean_k p(y | x, theta_k)``, in nats, and how much each sample moves it.

    Args:
        log_likelihoods: ``log p(y | x, theta_k)`` of shape ``(K, X)``.

    Returns:
        The loss ``()`` and the influences ``(K,)``, in double precision. By the delta method the variance of a linear
        combination of losses of the same samples is that of the same combination of influences over K.
    """
    values = log_likelihoods.double()
    marginals = torch.logsumexp(values, 0) - math.log(len(values))  # (X,)
    return -marginals.mean(), 1 - (values - marginals).exp().mean(1)


def standard_error(influences: Tensor) -> float:
    """Monte-Carlo standard error of an estimate from the influences ``(K,)`` of its samples."""
    num = len(influences)
    return math.inf if num < 2 else float(influences.std(unbiased=True) / math.sqrt(num))


@dataclass(frozen=True)
class Estimate:
    """A number from samples of the weights, with its Monte-Carlo standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class MarginalisedPath:
    """Marginalised losses along a path of posteriors.

    Attributes:
        times: Where on the path, ``(T,)``, from 0 to 1.
        losses: Loss in nats at each, ``(T,)``.
        influences: How much each sample of the weights moves each loss, ``(T, K)``.
    """

    times: Tensor
    losses: Tensor
    influences: Tensor

    @classmethod
    def of(cls, times: Tensor, log_likelihoods: Iterable[Tensor]) -> "MarginalisedPath":
        """The path from ``log p(y | x, theta_k)`` of shape ``(K, X)`` at each of the places ``(T,)``."""
        losses, influences = zip(*map(marginal, log_likelihoods))
        return cls(times, torch.stack(losses), torch.stack(influences))

    def standard_errors(self) -> Tensor:
        """Monte-Carlo standard error of each loss, ``(T,)``."""
        return torch.tensor([standard_error(each) for each in self.influences])

    def excess(self, values: Tensor) -> Tensor:
        """How far values ``(T, ...)`` lie above the line between their ends."""
        times = self.times.reshape(-1, *[1] * (values.ndim - 1))
        return values - ((1 - times) * values[0] + times * values[-1])

    def barrier(self) -> Estimate:
        """Largest excess over the line between the ends, in nats; at least zero, since the ends lie on it.

        Its error is that of the excess at the place of the maximum; all places share their samples.
        """
        excess = self.excess(self.losses)
        peak = int(excess.argmax())
        return Estimate(float(excess[peak]), standard_error(self.excess(self.influences)[peak]))


def sampled_along(
    first: Posterior,
    second: Posterior,
    function: Callable[[dict[str, Tensor]], Tensor],
    times: Tensor,
    *,
    num_samples: int,
    seed: int,
) -> Iterator[Tensor]:
    """A function of weights that are sampled along the geodesic; every place gets the same noise.

    Args:
        first: Posterior at time 0.
        second: Posterior at time 1.
        function: From weights to a tensor.
        times: Places ``(T,)``.
        num_samples: Samples K of the weights at each place.
        seed: Seed of the noise.

    Yields:
        For each place what the function gave, stacked to ``(K, ...)``.
    """
    for time in times.tolist():
        here, generator = geodesic(first, second, time), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            yield torch.stack([function(here.sample(generator)) for _ in range(num_samples)])


def marginalised_path(
    first: Posterior,
    second: Posterior,
    log_likelihood: Callable[[dict[str, Tensor]], Tensor],
    *,
    num_points: int = NUM_POINTS,
    num_samples: int = 16,
    seed: int = 0,
) -> MarginalisedPath:
    """Marginalised losses along the geodesic between two posteriors.

    Args:
        first: Posterior at time 0.
        second: Posterior at time 1.
        log_likelihood: From weights to ``log p(y | x, theta)`` of all examples, ``(X,)``.
        num_points: Places, both ends included.
        num_samples: Samples of the weights at each place.
        seed: Seed of the noise, which is the same at every place.

    Source: arXiv 2310.10171, section 4.
    """
    times = torch.linspace(0, 1, num_points, dtype=torch.float64)
    samples = sampled_along(first, second, log_likelihood, times, num_samples=num_samples, seed=seed)
    return MarginalisedPath.of(times, samples)
