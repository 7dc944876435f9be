"""Points drawn by error: how often each comes, what it weighs, and that a field's draws are its own."""

import math

import pytest
import torch

from wsrl.fitting.draws import EVENLY, Draws, along_a_curve, drawn_by

CPU = torch.device("cpu")


def random_errors(num: int = 3, points: int = 60) -> torch.Tensor:
    return torch.rand(num, points, generator=torch.Generator().manual_seed(0)) ** 4


@pytest.mark.parametrize("subsets", [2, 3, 8])
def test_points_come_in_proportion_to_their_chance_and_weights_undo_it(subsets):
    errors = random_errors()
    places, weights = drawn_by(errors, subsets)
    assert places.shape == weights.shape == (3, subsets, math.ceil(60 / subsets))
    chances = (1 - EVENLY) * errors / errors.sum(1, keepdim=True) + EVENLY / 60
    num_draws = places[0].numel()
    for row, chance, weight in zip(places.flatten(1), chances, weights.flatten(1)):
        counts = torch.bincount(row, minlength=60)
        assert (counts - num_draws * chance).abs().max() <= 1  # equally spaced marks: off by less than one draw
        torch.testing.assert_close(weight, 1 / (60 * chance[row]), rtol=1e-3, atol=0)
        assert weight.max() <= 1.01 / EVENLY


def test_every_subset_takes_its_share_everywhere():
    """The mean of a subset is near that of all points: three standard errors of terms between 0 and 1.25 means."""
    errors = random_errors(points=4096)
    places, weights = drawn_by(errors, 8)
    means = (weights * errors.unsqueeze(1).expand(-1, 8, -1).gather(2, places)).mean(2)  # (B, K)
    torch.testing.assert_close(means, errors.mean(1, keepdim=True).expand(-1, 8), rtol=3 * 0.625 / 512**0.5, atol=0)


def test_without_errors_all_points_come_once_and_weigh_the_same():
    for errors in (torch.ones(2, 60), torch.zeros(2, 60), torch.full((2, 60), torch.nan)):
        places, weights = drawn_by(errors, 4)
        assert places.flatten(1).sort(1).values.tolist() == [list(range(60))] * 2
        assert torch.equal(weights, torch.ones(2, 4, 15))


def test_the_draws_of_a_field_do_not_depend_on_the_others():
    errors = random_errors(5, 1000)
    places, weights = drawn_by(errors, 8)
    for row in range(5):
        alone = drawn_by(errors[row : row + 1].clone(), 8)
        assert torch.equal(alone[0][0], places[row]) and torch.equal(alone[1][0], weights[row])


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (3, 4, 5)])
def test_the_curve_passes_every_point_and_stays_near(grid):
    order = along_a_curve(grid, math.prod(grid))
    assert order.sort().values.tolist() == list(range(math.prod(grid)))
    along = torch.stack(torch.unravel_index(order, grid))
    rows = torch.stack(torch.unravel_index(torch.arange(math.prod(grid)), grid))
    quarter = len(order) // 4
    extent = {name: (p[:, :quarter].amax(1) - p[:, :quarter].amin(1)).max() for name, p in [("a", along), ("r", rows)]}
    assert extent["a"] < extent["r"]
    assert along_a_curve(None, 5).tolist() == [0, 1, 2, 3, 4]


def test_weights_of_points_stay_in_the_loss():
    own = torch.rand(24, generator=torch.Generator().manual_seed(1)) + 0.5
    draws = Draws(2, 24, 4, (4, 6), CPU)
    draws.begin(0, own)
    assert torch.equal(draws.weights[0], own[draws.places[0].long()])
    errors = random_errors(1, 24)
    draws.again(torch.tensor([0]), errors, own[None])
    places = draws.places[0].long()
    chance = (1 - EVENLY) * errors[0] * own / (errors[0] * own).sum() + EVENLY / 24
    torch.testing.assert_close(draws.weights[0], own[places] / (24 * chance[places]), rtol=1e-3, atol=0)
    seen, factors = draws.of(torch.tensor([5, 2]))
    assert torch.equal(seen[0], draws.places[0, 1]) and torch.equal(factors[1], draws.weights[1, 2])
