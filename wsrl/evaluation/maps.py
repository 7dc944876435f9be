"""Maps of fields in the plane: principal components and t-SNE of their weights, drawn with pictures of the fields.

The same features and seed give the same map. Letters: N items, F features.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from wsrl.errors import UserError

TSNE_COMPONENTS = 50
PERPLEXITY = 30.0
MARGIN = 0.04
TSNE_AXES = ("t-SNE, first coordinate (no unit)", "t-SNE, second coordinate (no unit)")


def pca_map(features: np.ndarray, num_components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the principal components.

    Args:
        features: Features ``(N, F)``.
        num_components: Number of components, at most N and F.

    Returns:
        Coordinates ``(N, num_components)`` in the units of the features, and the share of the variance that each has.
    """
    pca = PCA(num_components, svd_solver="full").fit(np.asarray(features, dtype=np.float64))
    return pca.transform(features), pca.explained_variance_ratio_


def tsne_map(features: np.ndarray, seed: int) -> np.ndarray:
    """Coordinates in which near fields are near.

    t-SNE on the first ``TSNE_COMPONENTS`` principal components, from the first two. Each item keeps about
    ``PERPLEXITY`` neighbours; a third of the items where these are few.

    Args:
        features: Features ``(N, F)``, more than two items.
        seed: Seed of the method.

    Returns:
        Coordinates ``(N, 2)``, without a unit.

    Raises:
        UserError: There are fewer than three items.
    """
    if len(features) < 3:
        raise UserError(f"there are {len(features)} items to map", allowed="3 or more", do="raise --limit")
    components = pca_map(features, min(TSNE_COMPONENTS, *features.shape))[0]
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    method = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return method.fit_transform(components.astype(np.float32)).astype(np.float64)


def spaced_points(points: np.ndarray, least: float) -> np.ndarray:
    """Indices of points of which no two are nearer than ``least`` along both axes: the earlier of two stays.

    Args:
        points: Coordinates ``(N, 2)``.
        least: Side of the square that each point needs.
    """
    kept: list[int] = []
    for index, point in enumerate(points):
        if not kept or (np.abs(points[kept] - point).max(axis=1) >= least).all():
            kept.append(index)
    return np.array(kept, dtype=int)


def in_unit_square(points: np.ndarray) -> np.ndarray:
    """Coordinates ``(N, 2)`` moved and scaled along each axis to fill [0, 1]."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / np.where(high > low, high - low, 1)


def draw_map(
    axis: Axes,
    points: np.ndarray,
    pictures: dict[int, Image.Image],
    side: float,
    labels: np.ndarray,
    label_names: Sequence[str],
    *,
    title: str,
    axis_names: Sequence[str],
) -> None:
    """Draw a map: a dot for every item, and the pictures of some where they lie.

    Args:
        axis: Where to draw.
        points: Coordinates ``(N, 2)`` in [0, 1].
        pictures: Pictures by the index of their item.
        side: Side of a picture, in units of the coordinates.
        labels: Class indices ``(N,)``.
        label_names: Names of the classes, each written at the median of its items.
        title: Title of the panel.
        axis_names: What lies along both axes, with the unit.
    """
    # All items as dots, and above them the pictures of some.
    axis.scatter(*points.T, s=2, color="0.75", linewidths=0, zorder=1)
    for index, picture in pictures.items():
        (x, y), half = points[index], 0.46 * side
        box = (x - half, x + half, y - half, y + half)
        axis.imshow(np.asarray(picture.convert("RGB")), extent=box, zorder=2, interpolation="antialiased")
    # Each class by its name, at the median, which a few strays do not move.
    for number, name in enumerate(label_names):
        inside = points[labels == number]
        if len(inside):
            middle = np.median(inside, axis=0)
            frame = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "black", "linewidth": 0.6}
            axis.text(*middle, name, fontsize=6.5, ha="center", va="center", zorder=3, bbox=frame)
    # A map has no scale: no ticks.
    axis.set_xlim(-MARGIN, 1 + MARGIN)
    axis.set_ylim(-MARGIN, 1 + MARGIN)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(axis_names[0], fontsize=8)
    axis.set_ylabel(axis_names[1], fontsize=8)
    axis.set_title(title, fontsize=10)
