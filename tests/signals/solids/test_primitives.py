"""Distances to primitives are exact: a foot on the surface, at that distance, and nothing nearer."""

import numpy as np
import pytest
from scipy.optimize import minimize

from wsrl.signals.solids.families import about_x, about_z, any_rotation
from wsrl.signals.solids.primitives import Box, Capsule, Ellipsoid, Revolution, Torus, lengths

CUP = np.array([(0, -0.4), (0.4, -0.4), (0.45, 0.4), (0.35, 0.4), (0.3, -0.3), (0, -0.3)])
TURN = about_z(0.7) @ about_x(0.4)
PRIMITIVES = {
    "ellipsoid": Ellipsoid(axes=np.array([0.7, 0.5, 0.2]), rotation=TURN, center=np.array([0.1, 0.2, -0.1])),
    "sphere": Ellipsoid(axes=np.full(3, 0.5)),
    "box": Box(half=np.array([0.3, 0.5, 0.1]), rotation=TURN),
    "rounded box": Box(half=np.array([0.3, 0.5, 0.1]), rounding=0.1),
    "capsule": Capsule(half_length=0.4, radius=0.2, rotation=TURN),
    "torus": Torus(major=0.5, minor=0.15),
    "arc": Torus(major=0.5, minor=0.1, half_angle=1.2, rotation=TURN),
    "cone": Revolution(profile=np.array([(0, -0.5), (0.5, -0.5), (0, 0.5)])),
    "cup": Revolution(profile=CUP, rotation=TURN),
    "cup, other sense": Revolution(profile=CUP[::-1]),
}


@pytest.fixture(params=PRIMITIVES)
def primitive(request):
    return PRIMITIVES[request.param]


def cloud(num=2000):
    """Points everywhere, in planes and on axes of symmetry, and at the centre."""
    points = np.random.default_rng(0).uniform(-1, 1, (num, 3))
    points[: num // 10, 2] = 0
    points[num // 10 : num // 5, 2] = 1e-13
    points[num // 5 : num // 4, :2] = 0
    return np.concatenate([points, np.zeros((1, 3))])


def test_foot_is_on_the_surface(primitive):
    points = cloud()
    distance, gradient = primitive.distance(points)
    assert np.allclose(lengths(gradient), 1, atol=1e-12)
    assert np.abs(primitive.distance(points - distance[:, None] * gradient)[0]).max() < 1e-12


def test_never_steeper_than_one(primitive):
    generator = np.random.default_rng(1)
    points, others = generator.uniform(-1, 1, (2, 20_000, 3))
    others = np.where(generator.uniform(size=(20_000, 1)) < 0.5, others, points + 0.01 * others)
    apart = lengths(points - others)
    assert (np.abs(primitive.distance(points)[0] - primitive.distance(others)[0]) <= apart + 1e-12).all()


def test_gradient_is_the_derivative(primitive):
    points, step = np.random.default_rng(2).uniform(-1, 1, (500, 3)), 1e-6
    _, gradient = primitive.distance(points)
    ahead, behind = (
        np.stack([primitive.distance(points + sign * step * axis)[0] for axis in np.eye(3)], 1) for sign in (1, -1)
    )
    wrong = np.abs((ahead - behind) / (2 * step) - gradient).max(axis=1) > 1e-6
    assert wrong.mean() < 0.01, "only where the medial axis is closer than the step"


def test_reach_holds_the_shape(primitive):
    far = primitive.center + 1.0001 * primitive.reach() * unit_sphere()
    assert (primitive.distance(far)[0] > 0).all()


def unit_sphere():
    """Many directions."""
    directions = np.random.default_rng(3).normal(size=(5000, 3))
    return directions / lengths(directions)[:, None]


def test_ellipsoid_against_a_minimiser():
    axes = np.array([0.9, 0.6, 0.25])
    points = np.random.default_rng(4).uniform(-1, 1, (5, 3))
    points[0] = (0.1, 0.05, 0)  # inside, in the plane where two points of the surface are closest
    found, _ = Ellipsoid(axes=axes).distance(points)
    for point, distance in zip(points, found, strict=True):
        best = min(nearest(point, axes, start) for start in unit_sphere()[:12])
        assert abs(distance) == pytest.approx(best, abs=1e-7)
        assert (distance < 0) == ((point / axes) @ (point / axes) < 1)


def nearest(point, axes, start):
    """Local minimum of the distance from a point to an ellipsoid, over directions."""

    def distance(direction):
        return np.linalg.norm(axes * direction / np.linalg.norm(direction) - point)

    return minimize(distance, start, tol=1e-12).fun


def test_closed_forms():
    assert PRIMITIVES["sphere"].distance(np.array([[2.0, 0, 0], [0.1, 0, 0]]))[0] == pytest.approx([1.5, -0.4])
    box, torus = Box(half=np.ones(3)), PRIMITIVES["torus"]
    corner = np.array([[2.0, 2, 2], [0.5, 0, 0], [3, 0, 0]])
    assert box.distance(corner)[0] == pytest.approx([np.sqrt(3), -0.5, 2])
    assert torus.distance(np.array([[0.5, 0, 0], [0, 0, 0], [0, 1, 0]]))[0] == pytest.approx([-0.15, 0.35, 0.35])
    cone = PRIMITIVES["cone"].distance(np.array([[0, 0, 1.5], [0, 0, -1.0], [0, 0, -0.45]]))[0]
    assert cone == pytest.approx([1.0, 0.5, -0.05])


@pytest.mark.parametrize("name", ["cup", "cup, other sense"])
def test_inner_edges_of_a_cup(name):
    cup = PRIMITIVES[name]
    points, tangents = cup.creases()
    assert np.abs(cup.distance(points)[0]).max() < 1e-12 and np.allclose(lengths(tangents), 1)
    inside = (points - cup.center) @ cup.rotation
    assert np.allclose(inside[:, 2], -0.3) and np.allclose(np.hypot(inside[:, 0], inside[:, 1]), 0.3)
    assert len(PRIMITIVES["cone"].creases()[0]) == len(PRIMITIVES["box"].creases()[0]) == 0


def test_rotations_are_rotations():
    for turn in (any_rotation(np.random.default_rng(5)), about_x(0.3), about_z(0.3)):
        assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(about_x(np.pi / 2) @ [0, 1, 0], [0, 0, 1])
