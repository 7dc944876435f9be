"""Chamfer distances beside loops, and the scores of sets whose scores are known."""

import numpy as np
import pytest
import torch
import trimesh

from wsrl.errors import SignalError
from wsrl.evaluation import chamfer, shape_sets
from wsrl.evaluation.chamfer import chamfer_distances
from wsrl.evaluation.shape_sets import (
    WORST,
    coverage,
    halves,
    minimum_matching,
    nearest_shapes,
    normalised,
    one_nearest_neighbour,
    pairwise_chamfer,
    shape_set_scores,
    surface_points,
)


def ellipsoids(num, seed, points=64):
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=(num, points, 3))
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    return np.stack([normalised(one) for one in drawn * generator.uniform(0.2, 1.0, (num, 1, 3))])


def by_loops(x, y):
    squared = ((x[:, None] - y[None]) ** 2).sum(axis=2)
    return squared.min(axis=0).mean() + squared.min(axis=1).mean()


@pytest.mark.parametrize("way", ["kernel", "trees", "odd"])
def test_distances_agree_with_loops(way, monkeypatch):
    if way == "trees":
        monkeypatch.setattr(chamfer, "load", lambda: (None, "for the test"))
    points = 61 if way == "odd" else 64  # the kernel takes eight at a time
    x, y = ellipsoids(11, 0, points), ellipsoids(5, 1, points)
    expected = [[by_loops(a, b) for b in y] for a in x]
    assert chamfer_distances(x, y) == pytest.approx(np.array(expected), rel=1e-5)


def test_there_is_a_kernel_where_there_is_a_compiler():
    library, reason = chamfer.load()
    assert library is not None or "compiler" in reason


def test_two_halves_of_one_set_cannot_be_told_apart():
    first, second = halves(ellipsoids(600, 0, 32), seed=0)
    scores = shape_set_scores(first, second)
    assert 45 <= scores["one_nna"] <= 55


def test_identical_sets():
    shapes = ellipsoids(20, 0)
    scores = shape_set_scores(shapes, shapes)
    assert scores["cov"] == 100 and scores["mmd_cd"] == 0


def test_sets_that_differ_are_told_apart_and_one_shape_covers_little():
    shapes, other = ellipsoids(20, 0), ellipsoids(20, 1)
    rods = np.stack([normalised(one * [0.05, 0.05, 1.0]) for one in other])
    assert shape_set_scores(rods, shapes)["one_nna"] > 90
    assert coverage(pairwise_chamfer(np.repeat(other[:1], 20, axis=0), shapes)) == 100 / 20


def test_scores_agree_with_their_definitions():
    x, y = ellipsoids(9, 0), ellipsoids(7, 1)
    between = np.array([[by_loops(a, b) for b in y] for a in x])
    assert minimum_matching(between) == pytest.approx(np.mean([min(column) for column in between.T]))
    assert coverage(between) == pytest.approx(100 * len({int(np.argmin(row)) for row in between}) / 7)
    everything, own = [*x, *y], [0] * 9 + [1] * 7
    right = 0
    for i, shape in enumerate(everything):
        distances = [np.inf if i == j else by_loops(shape, other) for j, other in enumerate(everything)]
        right += own[int(np.argmin(distances))] == own[i]
    found = one_nearest_neighbour(pairwise_chamfer(x, x), between, pairwise_chamfer(y, y))
    assert found == pytest.approx(100 * right / 16)


def test_samples_without_a_surface_stay_in_every_denominator():
    samples, references = ellipsoids(10, 0), ellipsoids(10, 1)
    broken = samples.copy()
    broken[5:] = np.nan
    assert (pairwise_chamfer(broken, references)[5:] == WORST).all()
    scores, half = shape_set_scores(broken, references), shape_set_scores(samples[:5], references)
    assert scores["mmd_cd"] == half["mmd_cd"] and scores["cov"] == half["cov"]
    nothing = shape_set_scores(np.full_like(samples, np.nan), references)
    assert nothing == {"mmd_cd": WORST, "cov": 0.0, "one_nna": 100.0}
    told_apart = 5 * 100.0 / 20  # each broken sample
    assert scores["one_nna"] == pytest.approx(half["one_nna"] * 15 / 20 + told_apart)


def test_the_largest_distance_is_that_of_opposite_points():
    one = np.tile([1.0, 0.0, 0.0], (1, 8, 1))
    assert chamfer_distances(one, -one)[0, 0] == WORST


def test_normalised_points_do_not_depend_on_place_and_size():
    points = ellipsoids(1, 0)[0]
    assert np.abs(normalised(points * 0.3 + 2.0) - points).max() < 1e-12
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1.0)


def test_the_nearest_shape_is_found_by_few_points_first(monkeypatch):
    monkeypatch.setattr(shape_sets, "COARSE", 64)
    monkeypatch.setattr(shape_sets, "CANDIDATES", 6)
    references, samples = ellipsoids(60, 0, 256), ellipsoids(12, 1, 256)
    samples[3] = np.nan
    distances, indices = nearest_shapes(samples, references)
    exact = chamfer_distances(samples[:3], references)
    assert indices[:3].tolist() == exact.argmin(axis=1).tolist()
    assert distances[:3] == pytest.approx(exact.min(axis=1) ** 0.5)
    assert (distances[3], indices[3]) == (0, -1)


class Shape:
    """A field that has the mesh it was given."""

    def __init__(self, mesh):
        self.given = mesh

    def mesh(self, resolution):
        if self.given is None:
            raise SignalError("a value is not a number")
        return self.given


def test_every_field_has_a_row_of_points():
    ball, nothing = trimesh.creation.icosphere(2), trimesh.Trimesh()
    points, meshes = surface_points([Shape(ball), Shape(None), Shape(nothing), Shape(ball)], 16, num_points=32)
    assert points.shape == (4, 32, 3) and [mesh is None for mesh in meshes] == [False, True, True, False]
    assert np.isnan(points[[1, 2]]).all() and np.linalg.norm(points[3], axis=1).max() == pytest.approx(1.0)
    assert not torch.equal(*map(torch.from_numpy, points[[0, 3]]))
