"""Problems that are solved together reach the points that each has alone, badly conditioned ones too."""

import torch

from wsrl.evaluation.lbfgs import minimise

CURVATURES = torch.tensor([[1.0, 1.0, 1.0], [1.0, 10.0, 1e3], [0.01, 1.0, 30.0]], dtype=torch.float64)
CENTRES = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.5, 1.0], [0.0, 0.0, 7.0]], dtype=torch.float64)


def function(points, which):
    """Problem by problem ``1 + sum(log cosh(x - centre) * curvature)``."""
    off, curvatures = points - CENTRES[which], CURVATURES[which]
    values = 1 + (curvatures * (off.abs() + torch.log1p(torch.exp(-2 * off.abs())))).sum(1)
    return values, curvatures * off.tanh()


def test_least_points_are_found():
    found = minimise(function, torch.zeros(3, 3, dtype=torch.float64), 1e-12)
    torch.testing.assert_close(found, CENTRES, rtol=0, atol=1e-4)


def test_together_as_alone():
    start = torch.ones(3, 3, dtype=torch.float64)
    together = minimise(function, start, 1e-8)
    for i in range(3):
        alone = minimise(lambda points, _, i=i: function(points, torch.tensor([i])), start[i : i + 1], 1e-8)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_a_solved_problem_is_left_where_it_is_and_others_go_on():
    start = torch.stack([CENTRES[0], torch.zeros(3, dtype=torch.float64)])
    asked = []

    def counted(points, which):
        asked.append(which.tolist())
        return function(points, which)

    found = minimise(counted, start, 1e-10)
    assert torch.equal(found[0], CENTRES[0]) and asked[0] == [0, 1] and set(map(tuple, asked[1:])) == {(1,)}
    torch.testing.assert_close(found[1], CENTRES[1], rtol=0, atol=1e-4)


def test_a_function_that_no_step_lowers_ends():
    start = torch.ones(1, 2)
    found = minimise(lambda points, which: (torch.ones(len(points)).double(), torch.ones_like(points)), start, 1e-9)
    assert torch.equal(found, start)
