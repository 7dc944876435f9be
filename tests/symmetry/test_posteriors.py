"""Gaussian posteriors: distance, geodesic, alignment, and marginal losses whose values are known in closed form."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from wsrl.errors import UserError
from wsrl.symmetry.matching.posterior_alignment import align_posterior
from wsrl.symmetry.matching.posteriors import (
    MarginalisedPath,
    Posterior,
    geodesic,
    marginal,
    marginalised_path,
    squared_wasserstein,
    standard_error,
)
from wsrl.symmetry.spec.spec import PermutationSpec


def network():
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))


def posterior(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: each.shape for name, each in network().named_parameters()}
    means = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return Posterior(means, {name: 0.1 + torch.rand(shape, generator=generator) for name, shape in shapes.items()})


SPEC = PermutationSpec.from_module(network(), torch.zeros(2, 5))


def scalar(mean, std, num=1):
    """A posterior over ``num`` independent numbers."""
    return Posterior(*({"w": torch.full((num,), float(value))} for value in (mean, std)))


def test_distance_of_numbers_is_that_of_their_quantile_functions():
    probabilities = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    quantiles = math.sqrt(2) * torch.erfinv(2 * probabilities - 1)
    expected = (((1.0 - -0.5) + (0.3 - 0.9) * quantiles) ** 2).mean()
    assert squared_wasserstein(scalar(1.0, 0.3), scalar(-0.5, 0.9)) == pytest.approx(float(expected), rel=1e-4)


def test_geodesic_has_constant_speed():
    first, second = posterior(0), posterior(1)
    whole = squared_wasserstein(first, second)
    for time in (0.0, 0.25, 0.6, 1.0):
        here = geodesic(first, second, time)
        assert squared_wasserstein(first, here) == pytest.approx(time**2 * whole, rel=1e-5)
        assert squared_wasserstein(here, second) == pytest.approx((1 - time) ** 2 * whole, rel=1e-5)


@pytest.mark.parametrize("cost", ["means", "means_and_stds"])
def test_a_permuted_posterior_is_recovered(cost):
    first = posterior(0)
    moving = first.moved(SPEC, SPEC.random_permutation(torch.Generator().manual_seed(3)))
    assert squared_wasserstein(first, moving) > 10
    aligned, _ = align_posterior(SPEC, first, moving, cost=cost)
    assert squared_wasserstein(first, aligned) == 0


def test_stds_alone_distinguish_units_of_equal_means():
    first = posterior(0)
    first = Posterior({name: torch.zeros_like(mean) for name, mean in first.means.items()}, first.stds)
    moving = first.moved(SPEC, SPEC.random_permutation(torch.Generator().manual_seed(3)))
    assert squared_wasserstein(first, align_posterior(SPEC, first, moving)[0]) == 0
    assert squared_wasserstein(first, align_posterior(SPEC, first, moving, cost="means")[0]) > 1


def test_a_permuted_posterior_is_of_the_same_functions():
    first, module, inputs = posterior(0), network(), torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    permutation = SPEC.random_permutation(torch.Generator().manual_seed(3))
    noise = first.noise(torch.Generator().manual_seed(4))
    expected = functional_call(module, first.at(noise), (inputs,))
    moved = first.moved(SPEC, permutation)
    torch.testing.assert_close(functional_call(module, moved.at(SPEC.apply(noise, permutation)), (inputs,)), expected)
    assert not torch.allclose(functional_call(module, moved.at(noise), (inputs,)), expected, atol=1e-3)


def gaussian_density(targets, std):
    """``log N(y | w, std^2)`` of every target under a single weight."""
    constant = math.log(std) + 0.5 * math.log(2 * math.pi)
    return lambda weights: -0.5 * ((targets - weights["w"]) / std).square() - constant


def test_marginal_loss_of_a_gaussian_and_its_error_are_right():
    targets, here = torch.linspace(-2, 2, 30), scalar(0.3, 0.7)
    exact = -torch.distributions.Normal(0.3, math.hypot(0.7, 0.8)).log_prob(targets).mean()
    density, estimates = gaussian_density(targets, 0.8), []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        estimates.append(
            marginal(torch.stack([gaussian_density(targets, 0.8)(here.sample(generator)) for _ in range(200)]))
        )
    losses = torch.stack([loss for loss, _ in estimates])
    errors = torch.tensor([standard_error(influences) for _, influences in estimates])
    assert abs(losses.mean() - exact) < 4 * losses.std() / math.sqrt(40)
    assert float(losses.std()) == pytest.approx(float(errors.mean()), rel=0.35)  # 40 repeats tell a spread to 11%
    # Without the mean under the logarithm another number comes out: Jensen's gap.
    mean_of_logs = torch.stack([density({"w": torch.tensor(0.3 + 0.7 * z)}) for z in (-1, 1)])
    assert -mean_of_logs.mean() > exact + 0.1


def test_barrier_of_a_path_of_gaussians():
    targets = torch.tensor([0.0, 0.5])
    first, second = scalar(-1.0, 0.5), scalar(1.0, 1.0)
    path = marginalised_path(first, second, gaussian_density(targets, 0.5), num_points=3, num_samples=1000)
    exact = torch.stack(
        [
            -torch.distributions.Normal(2 * t - 1, math.hypot(0.5 + 0.5 * t, 0.5)).log_prob(targets).mean()
            for t in path.times
        ]
    )
    assert ((path.losses - exact).abs() < 4 * path.standard_errors()).all()
    reverse = MarginalisedPath(path.times, -path.losses, path.influences).barrier()
    assert path.barrier().value == 0 == path.barrier().standard_error  # the way leads through better weights
    assert reverse.value == pytest.approx(float(-path.excess(exact).min()), abs=4 * reverse.standard_error)
    assert 0 < reverse.standard_error < 0.1 * reverse.value


def test_shared_noise_makes_the_barrier_between_equal_posteriors_exactly_zero():
    density = gaussian_density(torch.linspace(-1, 1, 5), 0.5)
    barrier = marginalised_path(scalar(0, 1), scalar(0, 1), density, num_points=3, num_samples=4).barrier()
    assert (barrier.value, barrier.standard_error) == (0.0, 0.0)
    paths = [
        marginalised_path(scalar(0, 1), scalar(3, 1), density, num_points=3, num_samples=4, seed=s) for s in (0, 1)
    ]
    assert not torch.equal(paths[0].losses, paths[1].losses)


def test_what_is_no_posterior_is_refused():
    with pytest.raises(UserError, match="a standard deviation of w is negative"):
        scalar(0, -1)
    with pytest.raises(UserError, match="a standard deviation of w is negative or not a number"):
        scalar(0, math.nan)
    with pytest.raises(UserError, match="b has no mean and standard deviation"):
        Posterior({"a": torch.zeros(2)}, {"a": torch.ones(2), "b": torch.ones(2)})
    with pytest.raises(UserError, match=r"w has the shape \(1,\) in one posterior and \(2,\) in the other"):
        squared_wasserstein(scalar(0, 1), scalar(0, 1, num=2))
    with pytest.raises(UserError, match="cost is 'stds'"):
        align_posterior(SPEC, posterior(0), posterior(1), cost="stds")
