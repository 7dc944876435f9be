"""Shapes become signals: what is drawn, from which seed, and what a fit is given."""

import numpy as np
import pytest
import torch
import trimesh

from wsrl.errors import SignalError, UserError
from wsrl.signals.shapes.shape import ShapeOptions, prepare_shape, rejected, to_signal

FEW = {"num_near": 400, "num_uniform": 300, "num_surface": 500, "num_heldout": 600}


@pytest.fixture(scope="module")
def ball():
    return trimesh.creation.icosphere(subdivisions=3, radius=7.0)


def prepared(ball, seed=0, **options):
    return prepare_shape(ball, ShapeOptions(**FEW, **options), seed)


def test_the_pool_is_near_the_surface_at_two_scales_and_in_the_cube(ball):
    shape = prepared(ball)
    assert shape.points.shape == (1100, 3)
    assert shape.distances.shape == (1100,)
    exact = np.linalg.norm(shape.points, axis=1) - 0.9
    np.testing.assert_allclose(shape.distances, exact, atol=6e-3)  # 1,280 faces
    assert np.abs(shape.points).max() <= 1
    near = np.abs(shape.distances)
    assert (near < 0.02).mean() > 0.4
    assert (near > 0.15).mean() > 0.1
    first = near[:100]  # shuffled: any prefix is a sample of the whole
    assert 0.25 < (first < 0.02).mean() < 0.7


def test_surface_and_heldout_points(ball):
    shape = prepared(ball)
    np.testing.assert_allclose(np.linalg.norm(shape.surface, axis=1), 0.9, atol=6e-3)
    assert np.einsum("si,si->s", shape.surface, shape.normals).min() > 0.8
    assert shape.heldout_points.shape == (600, 3)
    assert shape.scale == pytest.approx(7 / 0.9)
    assert shape.quality["volume_fraction"] == pytest.approx(0.9**3, abs=0.12)
    pool = {tuple(point) for point in shape.points}
    assert not any(tuple(point) in pool for point in shape.heldout_points)


def test_points_depend_on_the_seed_and_on_nothing_else(ball):
    first, again, other = prepared(ball, 3), prepared(ball, 3), prepared(ball, 4)
    assert (first.points == again.points).all()
    assert (first.distances == again.distances).all()
    assert not (first.points == other.points).all()


def test_a_signal_of_distances_is_clamped_and_weighted(ball):
    shape = prepared(ball)
    options = ShapeOptions(**FEW, clamp=0.05, near_weight=3.0, near_scale=0.01, num_points=64)
    signal = to_signal(shape, options, id="ball", label="round", split=None)
    distances = torch.from_numpy(shape.distances[:64])
    assert signal.form.quantity == "sdf"
    assert signal.form.value_range == (-0.05, 0.05)
    assert signal.coords.shape == (64, 3)
    torch.testing.assert_close(signal.values[:, 0], distances.clamp(-0.05, 0.05))
    torch.testing.assert_close(signal.weights, 1 + 3 * torch.exp(-distances.abs() / 0.01))
    assert signal.label == "round"
    assert signal.heldout_distances.abs().max() > 0.05  # never clamped


def test_a_signal_of_occupancy_is_one_inside(ball):
    shape = prepared(ball)
    signal = to_signal(shape, ShapeOptions(**FEW, quantity="occupancy"), id="ball", label=None, split=None)
    inside = torch.from_numpy(np.linalg.norm(shape.points, axis=1)) < 0.89
    assert signal.form.value_range == (0.0, 1.0)
    assert set(signal.values.unique().tolist()) == {0.0, 1.0}
    assert signal.values[inside].min() == 1


def test_a_rejected_shape_is_no_signal():
    with pytest.raises(SignalError, match=r"lamp: it encloses nothing"):
        to_signal(rejected("it encloses nothing"), ShapeOptions(), id="lamp", label=None, split=None)


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ({"quantity": "colour"}, "sdf or occupancy"),
        ({"clamp": 0}, "above 0"),
        ({"near_scales": (0.01, -1)}, "numbers above 0"),
        ({"num_surface": 0}, "from 1"),
        ({"num_points": 0}, "from 1"),
        ({"near_weight": -1}, "from 0"),
    ],
)
def test_options_are_checked(option, allowed):
    with pytest.raises(UserError, match=allowed):
        ShapeOptions(**option)


def test_what_is_only_handed_out_does_not_change_what_is_prepared():
    plain = ShapeOptions().sampling()
    assert ShapeOptions(quantity="occupancy", clamp=0.2, num_points=9, cache="x", limit=3).sampling() == plain
    assert ShapeOptions(num_near=9).sampling() != plain
    assert ShapeOptions(near_scales=(0.02,)).sampling() != plain
    assert "cache" not in ShapeOptions().to_dict()
