"""Maps repeat, keep neighbours together, and their pictures do not overlap."""

import numpy as np
import pytest
from PIL import Image

from wsrl.errors import UserError
from wsrl.evaluation.maps import draw_map, in_unit_square, pca_map, spaced_points, tsne_map
from wsrl.report.figures import new_figure, save_figure

LABELS = np.arange(40) % 2


def features():
    generator = np.random.default_rng(0)
    return (generator.normal(size=(40, 6)) + 8 * LABELS[:, None]).astype(np.float32)


def together(points):
    """Share of the items whose nearest neighbour is of their class."""
    distance = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    return np.mean(LABELS[distance.argmin(axis=1)] == LABELS)


def test_tsne_repeats_and_keeps_neighbours():
    first = tsne_map(features(), seed=3)
    assert first.shape == (40, 2) and np.array_equal(first, tsne_map(features(), seed=3))
    assert together(first) == 1.0 > together(np.random.default_rng(1).normal(size=(40, 2)))
    with pytest.raises(UserError, match="2 items"):
        tsne_map(features()[:2], seed=0)


def test_principal_components_hold_the_variance():
    points, shares = pca_map(features())
    assert np.array_equal(points, pca_map(features())[0])
    np.testing.assert_allclose(points.var(axis=0) / features().var(axis=0).sum(), shares, rtol=1e-4)
    assert shares[0] > 0.8 and together(points) == 1.0


def test_pictures_keep_their_distance():
    points = in_unit_square(np.random.default_rng(0).normal(size=(200, 2)))
    assert points.min() == 0 and points.max() == 1
    kept = points[spaced_points(points, 0.1)]
    apart = np.abs(kept[:, None] - kept).max(axis=2) + np.eye(len(kept))
    assert apart.min() >= 0.1
    assert all(np.abs(kept - point).max(axis=1).min() < 0.1 for point in points)  # there is no room for another
    assert len(spaced_points(points, 0.0)) == 200


def test_map_shows_the_pictures_at_their_places(tmp_path):
    def drawn(pictures):
        figure, axis = new_figure(width=3, height=3)
        points = np.array([[0.0, 0.0], [1.0, 1.0]])
        names = ("first (no unit)", "second (no unit)")
        draw_map(axis, points, pictures, 0.2, np.array([0, 0]), ["one"], title="two fields", axis_names=names)
        save_figure(figure, tmp_path / "map.png")
        return np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)

    bare, shown = drawn({}), drawn({0: Image.new("L", (8, 8), 0)})
    changed = np.argwhere(np.abs(bare - shown).sum(axis=2) > 100)
    height, width, _ = bare.shape
    assert len(changed) > 100 and (changed[:, 0] > height / 2).all() and (changed[:, 1] < width / 2).all()
