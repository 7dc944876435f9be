"""The error along a way, on values that can be worked out by hand, and distances beside plain loops."""

import numpy as np
import pytest
import torch

from wsrl.evaluation.interpolation import interpolation_scores, signal_distances
from wsrl.evaluation.shapes import volumetric_iou

ENDS = torch.tensor([[0.0, 0.0], [1.0, 1.0]])


def test_a_blend_of_pictures_has_no_barrier():
    way = torch.lerp(*ENDS, torch.linspace(0, 1, 5)[:, None])
    scores = interpolation_scores(way, ENDS, ENDS[:0], shapes=False)
    assert scores["barrier"] == 0 and scores["error_of_ends"] == [0, 0]
    assert scores["steps"]["loss"] == pytest.approx([(t**2 + (1 - t) ** 2) / 2 for t in (0, 0.25, 0.5, 0.75, 1)])
    assert "mean_to_nearest" not in scores


def test_a_way_that_leaves_both_ends_has_one():
    way = torch.tensor([[0.0, 0.0], [3.0, 3.0], [1.0, 1.0]])
    scores = interpolation_scores(way, ENDS, torch.tensor([[3.0, 3.0], [0.0, 1.0]]), shapes=False)
    assert scores["steps"]["loss"] == [0.5, (9 + 4) / 2, 0.5] and scores["barrier"] == 6.0
    assert scores["steps"]["to_nearest"] == [0.5, 0.0, 0.5]
    assert scores["mean_to_nearest_of_ends"] == 0.5


def test_distances_of_shapes_are_those_of_their_insides():
    inside = (torch.rand(5, 200, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    inside[4] = 0
    found = signal_distances(inside[:2], inside, shapes=True).numpy()
    solids = inside.numpy().astype(bool)
    expected = [[1 - volumetric_iou(one, other) for other in solids] for one in solids[:2]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert float(signal_distances(inside[4:], inside[4:], shapes=True)) == 0
