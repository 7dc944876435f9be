"""Scores of surfaces against brute force and against closed forms of two spheres."""

from itertools import pairwise
from math import pi
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist

from wsrl.evaluation.shapes import (
    EMPTY_SCORES,
    SurfacePoints,
    d2_histogram,
    match,
    sample_mesh,
    score_shape,
    volumetric_iou,
)

NUM = 4000


def sphere(radius, centre=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    mesh.apply_translation(centre)
    return mesh


def cube_points(num=200_000):
    return np.random.default_rng(0).uniform(-1, 1, (num, 3))


def signal_of(radius, num=NUM):
    """What the scores need of a ShapeSignal, of a sphere about the origin."""
    true, heldout = sample_mesh(sphere(radius), num, seed=9), cube_points(20_000)
    distances = np.linalg.norm(heldout, axis=1) - radius
    return SimpleNamespace(
        surface=true.points, normals=true.normals, heldout_coords=heldout, heldout_distances=distances
    )


def random_surface(seed, num):
    generator = np.random.default_rng(seed)
    normals = generator.normal(size=(num, 3))
    return SurfacePoints(generator.normal(size=(num, 3)), normals / np.linalg.norm(normals, axis=1, keepdims=True))


def test_scores_agree_with_brute_force():
    found, true = random_surface(1, 300), random_surface(2, 250)
    distances = cdist(found.points, true.points)
    cosines = np.abs(found.normals @ true.normals.T)
    matches = match(found, true)
    assert matches.chamfer_l1 == pytest.approx((distances.min(1).mean() + distances.min(0).mean()) / 2)
    squares = cdist(found.points, true.points, "sqeuclidean")
    assert matches.chamfer_l2_squared == pytest.approx((squares.min(1).mean() + squares.min(0).mean()) / 2)
    of_found, of_true = cosines[np.arange(300), distances.argmin(1)], cosines[distances.argmin(0), np.arange(250)]
    assert matches.normal_consistency == pytest.approx((of_found.mean() + of_true.mean()) / 2)
    precision, recall = (distances.min(1) < 0.4).mean(), (distances.min(0) < 0.4).mean()
    assert 0.1 < precision < 0.9  # else the threshold says nothing
    assert matches.f_score(0.4) == pytest.approx(2 * precision * recall / (precision + recall))
    assert matches.f_score(1e-9) == 0.0


def test_scores_do_not_depend_on_the_sign_of_normals_nor_on_the_order():
    found, true = random_surface(1, 300), random_surface(2, 250)
    flipped = SurfacePoints(true.points[::-1], -true.normals[::-1])
    first, second = match(found, true), match(flipped, found)
    assert first.chamfer_l1 == pytest.approx(second.chamfer_l1)
    assert first.normal_consistency == pytest.approx(second.normal_consistency)
    assert first.f_score(0.4) == pytest.approx(second.f_score(0.4))


def test_concentric_spheres_are_their_difference_of_radii_apart():
    inner, outer = (sample_mesh(sphere(radius), 20_000, seed=3) for radius in (0.4, 0.5))
    matches = match(inner, outer)
    # A point's nearest sample is not right above it: with this many, that adds less than a thousandth.
    assert matches.chamfer_l1 == pytest.approx(0.1, abs=1e-3)
    assert matches.chamfer_l2_squared == pytest.approx(0.01, abs=2e-4)
    assert matches.normal_consistency > 0.999
    assert matches.f_score(0.099) == 0.0 and matches.f_score(0.105) == 1.0


def test_iou_of_spheres_has_a_closed_form():
    points = cube_points()
    inside = {radius: np.linalg.norm(points, axis=1) < radius for radius in (0.6, 0.8)}
    assert volumetric_iou(inside[0.6], inside[0.8]) == pytest.approx(0.75**3, abs=5e-3)
    radius, apart = 0.5, 0.4
    left, right = (np.linalg.norm(points - (x, 0, 0), axis=1) < radius for x in (-apart / 2, apart / 2))
    lens = pi * (4 * radius + apart) * (2 * radius - apart) ** 2 / 12
    whole = 2 * 4 / 3 * pi * radius**3 - lens
    assert volumetric_iou(left, right) == pytest.approx(lens / whole, abs=5e-3)


def test_iou_of_nothing_is_not_a_number():
    nothing = np.zeros(5, dtype=bool)
    assert np.isnan(volumetric_iou(nothing, nothing))
    assert volumetric_iou(nothing, ~nothing) == 0.0


def test_a_perfect_reconstruction_reaches_the_ceiling():
    signal = signal_of(0.4)
    scores = score_shape(sphere(0.4), signal.heldout_distances < 0, signal, NUM, seed=1)
    assert scores["iou"] == 1.0 and scores["empty"] == 0.0
    assert scores["normal_consistency"] > 0.99
    # Within the spread of a share of 4,000 points.
    assert scores["f_score"] == pytest.approx(scores["f_score_ceiling"], abs=0.02)
    area = 4 * pi * 0.4**2
    assert scores["f_score_ceiling"] == pytest.approx(1 - np.exp(-NUM * pi * 0.02**2 / area), abs=0.02)


def test_a_worse_reconstruction_scores_worse():
    signal = signal_of(0.6)
    radii = (0.6, 0.58, 0.5)
    found = [
        score_shape(sphere(r), np.linalg.norm(signal.heldout_coords, axis=1) < r, signal, NUM, seed=1) for r in radii
    ]
    for better, worse in pairwise(found):
        assert better["iou"] > worse["iou"] and better["f_score"] > worse["f_score"]
        assert better["chamfer_l1"] < worse["chamfer_l1"]
        assert better["chamfer_l2_squared"] < worse["chamfer_l2_squared"]


def test_an_empty_mesh_is_counted_with_the_worst_scores():
    signal = signal_of(0.6)
    scores = score_shape(trimesh.Trimesh(), np.zeros(20_000, dtype=bool), signal, NUM)
    assert scores["empty"] == 1.0 and scores["iou"] == 0.0 and scores["f_score"] == 0.0
    assert {name: scores[name] for name in EMPTY_SCORES} == dict(EMPTY_SCORES)
    assert scores["chamfer_l1"] == pytest.approx(np.linalg.norm([2.0, 2.0, 2.0]))  # across the cube


def test_scores_are_those_of_their_seed_and_leave_global_random_numbers_alone():
    signal = signal_of(0.6, num=2 * NUM)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    scores = [score_shape(sphere(0.55), signal.heldout_distances < 0, signal, NUM, seed) for seed in (1, 1, 2)]
    assert scores[0] == scores[1] and scores[0] != scores[2]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_points_are_uniform_over_the_area():
    box = trimesh.creation.box(extents=(1.0, 0.5, 0.25))
    points = sample_mesh(box, 50_000, seed=0)
    share = (np.abs(points.points[:, 2]) == 0.125).mean()  # the two largest faces
    assert share == pytest.approx(2 * 0.5 / box.area, abs=0.01)
    assert (np.abs(points.normals).max(axis=1) == 1).all()


def test_d2_of_a_sphere_is_a_straight_line():
    radius = 0.9
    points = sample_mesh(sphere(radius), 20_000, seed=0).points
    shares = d2_histogram(points, seed=1, num_bins=20)
    edges = np.linspace(0, 2, 21).clip(max=2 * radius)
    expected = np.diff(edges**2) / (2 * radius) ** 2  # the density of a chord's length d is d / (2 r^2)
    assert shares.sum() == pytest.approx(1.0)
    assert np.abs(shares - expected).max() < 5e-3
    assert (d2_histogram(points, seed=1, num_bins=20) == shares).all()
