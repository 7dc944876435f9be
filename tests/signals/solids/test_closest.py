"""Distances to unions: never beyond the stated bound of what a dense sample of the surface says.

A foot that the search gives is a point of the surface, so its distance is never too small; a dense sample of the true
surface gives another upper bound. So the search may exceed the sample's distance by no more than its error.
"""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from wsrl.signals.solids.exact import ExactSolid
from wsrl.signals.solids.families import FAMILIES, make_union
from wsrl.signals.solids.meshing import mesh_union, onto_surface
from wsrl.signals.solids.nearest_point import ERROR_BOUND, UnionDistance, crease_points
from wsrl.signals.solids.primitives import Box, Ellipsoid, lengths
from wsrl.signals.solids.union import Union

OBJECTS = ("table", "chair", "lamp", "mug")


def dense_surface(shape, resolution, copies):
    """Very many points of the surface of a union, creases included, and its largest extent."""
    generator = np.random.default_rng(0)
    vertices, _ = mesh_union(shape, resolution)
    cell = float(np.ptp(vertices, axis=0).max()) / resolution
    moved = (vertices + generator.uniform(-1, 1, (copies, 1, 3)) * cell).reshape(-1, 3)
    parts = [vertices, onto_surface(shape, moved)[0]]
    if shape.blend == 0 and len(shape.bodies) > 1:
        near = vertices[np.partition(np.abs(shape.parts(vertices)[0]), 1, axis=0)[1] < 2 * cell]
        parts.append(crease_points(shape, (near + generator.uniform(-2, 2, (10, 1, 3)) * cell).reshape(-1, 3))[0])
    points = np.concatenate(parts)
    return points[np.abs(shape.value(points)[0]) < 1e-9]


def check_against_sample(family, seed, num=1500, resolution=64, copies=3):
    """Compare distances near, inside and around one shape with a dense sample of its surface."""
    solid = ExactSolid(make_union(family, np.random.default_rng([seed, 7])))
    dense = (dense_surface(solid.shape, resolution, copies) - solid.center) / solid.scale
    generator = np.random.default_rng(seed)
    near = dense[generator.integers(len(dense), size=2 * num)] + 0.04 * generator.normal(size=(2 * num, 3))
    points = np.concatenate([generator.uniform(-1, 1, (num, 3)), near])
    distance = solid.signed_distance(points)
    told, _ = cKDTree(dense).query(points)
    assert (np.abs(distance) - told).max() <= ERROR_BOUND
    value = solid.shape.value(points * solid.scale + solid.center)[0] / solid.scale
    assert np.array_equal(distance < 0, value < 0) and (np.abs(distance) >= np.abs(value) - 1e-9).all()
    # A foot is no farther from the sample than the cells that it was made of are wide.
    assert (told < np.abs(distance) + 2 / resolution).mean() > 0.99
    return solid, points, distance, value


@pytest.mark.parametrize(("family", "seed"), [("table", 1), ("lamp", 1), ("mug", 2), ("chair", 1)])
def test_against_a_dense_sample(family, seed):
    _, _, distance, value = check_against_sample(family, seed)
    assert (np.abs(distance) - np.abs(value)).max() > 0.005, "the implicit function alone is not the distance"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_against_a_dense_sample(family):
    for seed in range(10, 18):
        check_against_sample(family, seed, num=4000, resolution=128, copies=4)


@pytest.mark.parametrize("family", ["chair", "mug"])
def test_slope_is_one_almost_everywhere(family):
    solid = ExactSolid(make_union(family, np.random.default_rng([2, 7])))
    points, step = np.random.default_rng(0).uniform(-0.8, 0.8, (1500, 3)), 1e-4
    ahead, behind = (
        np.stack([solid.signed_distance(points + sign * step * axis) for axis in np.eye(3)], 1) for sign in (1, -1)
    )
    slope = lengths((ahead - behind) / (2 * step))
    assert np.mean(np.abs(slope - 1) > 0.02) < 0.02, "only where several points are closest"


def test_two_balls_inside():
    """The depth in the middle of two overlapping balls is that of the circle in which they meet, not of either ball."""
    balls = [Ellipsoid(axes=np.full(3, 1.0), center=np.array([x, 0, 0])) for x in (-0.5, 0.5)]
    shape = Union(bodies=tuple(balls))
    distance = UnionDistance(shape, *mesh_union(shape, 64))
    points = np.array([[0.0, 0, 0], [0, 0.3, 0], [0.1, 0, 0], [-1, 0, 0], [3, 0, 0]])
    circle = np.sqrt(0.75)
    expected = [-circle, -(circle - 0.3), -np.hypot(circle, 0.1), -0.5, 1.5]
    assert distance(points) == pytest.approx(expected, abs=1e-5)
    assert shape.value(points)[0][0] == pytest.approx(-0.5)


def test_box_on_box_inside():
    """A plate on a block: below the middle of the plate the block's sides are nearest, or the inner edges."""
    shape = Union(bodies=(Box(half=np.array([1.0, 1, 0.2])), Box(half=np.array([0.4, 0.4, 1]), center=[0, 0, -1])))
    distance = UnionDistance(shape, *mesh_union(shape, 64))
    points = np.array([[0.0, 0, -0.1], [0, 0, -0.5], [0.9, 0, 0.0], [0.35, 0, -0.19]])
    expected = [-0.3, -0.4, -0.1, -np.hypot(0.05, 0.01)]
    assert distance(points) == pytest.approx(expected, abs=1e-5)


def test_few_and_no_points():
    solid = ExactSolid(make_union("chair", np.random.default_rng(0)))
    points = np.random.default_rng(1).uniform(-1, 1, (40, 3))
    together = solid.signed_distance(points)
    alone = [solid.signed_distance(point[None])[0] for point in points]
    assert np.allclose(together, alone, rtol=0, atol=1e-9)
    assert solid.signed_distance(np.zeros((0, 3))).shape == (0,)
