"""Losses of posteriors that are marginalised over the weights, along the geodesic between two, and their barrier.

Letters: X examples, K samples of the weights, T points of a path.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.symmetry.matching.posteriors import Posterior, geodesic


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
        place = int(excess.argmax())
        return Estimate(float(excess[place]), standard_error(self.excess(self.influences)[place]))


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
    num_points: int = 25,
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
