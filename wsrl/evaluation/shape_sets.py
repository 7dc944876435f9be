"""Scores of a set of generated shapes against real ones: MMD, COV and 1-NNA with the Chamfer distance.

A shape is a set of points of its surface. One that has no surface, or none that is finite, counts with the largest
distance there is: it is never the nearest of anything, and stays in every denominator.

Letters: N samples, M references, P points.
Source: arXiv 1707.02392 (Achlioptas et al.), section 2 (MMD, COV); arXiv 1906.12320 (PointFlow), section 5.1 (1-NNA).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from wsrl.errors import SignalError
from wsrl.evaluation.chamfer import chamfer_distances
from wsrl.evaluation.shapes import sample_mesh
from wsrl.progress import UNSEEN, Progress
from wsrl.store.field import Field

SET_POINTS = 2_048
WORST = 8.0
"""Chamfer distance of a shape that is not valid: that of two opposite points of the unit sphere, both ways."""
COARSE, CANDIDATES = 256, 8
"""Points of the first comparison of shapes, and the nearest ones by it, which are compared by all points."""
NORMALISATION = (
    "each set of points on its own: centre of its bounding box to the origin, farthest point to radius 1; "
    "Chamfer distance: mean squared distance to the nearest point, the two directions added"
)


def normalised(points: np.ndarray) -> np.ndarray:
    """Points ``(P, 3)`` with the centre of their bounding box at the origin and the farthest at radius 1."""
    moved = points - (points.min(axis=0) + points.max(axis=0)) / 2
    return moved / max(float(np.linalg.norm(moved, axis=1).max()), 1e-12)


def surface_points(
    fields: Iterable[Field],
    resolution: int,
    num_points: int = SET_POINTS,
    seed: int = 0,
    shown: Progress = UNSEEN,
) -> tuple[np.ndarray, list]:
    """Normalised points of the surfaces of fields.

    Args:
        fields: Shapes.
        resolution: Cells of a side of the grid that their meshes are found on.
        num_points: Points of each, P.
        seed: Seed of the points; shape ``i`` adds ``i`` to it.
        shown: The loop's progress; each shape counts one.

    Returns:
        Points ``(N, P, 3)``, float32, NaN for a field without a surface or with values that are not numbers; and the
        meshes, None for such a field.
    """
    points, meshes = [], []
    for i, field in enumerate(fields):
        mesh = _mesh_or_none(field, resolution)
        missing = np.full((num_points, 3), np.nan, dtype=np.float32)
        points.append(missing if mesh is None else normalised(sample_mesh(mesh, num_points, seed + i).points))
        meshes.append(mesh)
        shown.advance(1)
    return np.stack(points) if points else np.zeros((0, num_points, 3), dtype=np.float32), meshes


def _mesh_or_none(field: Field, resolution: int):
    try:
        mesh = field.mesh(resolution)
    except SignalError:  # a value is not a number
        return None
    return mesh if len(mesh.faces) and np.isfinite(mesh.vertices).all() and mesh.area > 0 else None


def valid_shapes(points: np.ndarray) -> np.ndarray:
    """Which of the point sets ``(N, P, 3)`` are finite, ``(N,)``."""
    return np.isfinite(points).all(axis=(1, 2))


def pairwise_chamfer(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Chamfer distances ``(N, M)`` of normalised point sets, ``WORST`` where either is not finite.

    Args:
        first: Point sets ``(N, P, 3)``.
        second: Point sets ``(M, P, 3)``.
    """
    rows, columns = valid_shapes(first), valid_shapes(second)
    distances = np.full((len(first), len(second)), WORST)
    distances[np.ix_(rows, columns)] = chamfer_distances(first[rows], second[columns])
    return distances


def minimum_matching(between: np.ndarray) -> float:
    """MMD: mean distance of a reference to its nearest sample; smaller is better.

    Args:
        between: Distances ``(N, M)`` of samples and references.
    """
    return float(between.min(axis=0).mean())


def coverage(between: np.ndarray) -> float:
    """COV: percentage of references that are the nearest of some sample; 100 is best.

    Args:
        between: Distances ``(N, M)`` of samples and references; a sample all of whose distances are ``WORST`` has no
            nearest reference.
    """
    valid = (between < WORST).any(axis=1)
    return 100.0 * len(np.unique(between[valid].argmin(axis=1))) / between.shape[1]


def one_nearest_neighbour(within_samples: np.ndarray, between: np.ndarray, within_references: np.ndarray) -> float:
    """1-NNA: percentage of all shapes whose nearest other shape is of their own set; 50 is best, 100 is worst.

    A shape that is equally near to both sets counts half. A sample that is not valid is at ``WORST``
    from all others and counts as told apart.

    Args:
        within_samples: Distances ``(N, N)``.
        between: Distances ``(N, M)`` of samples and references.
        within_references: Distances ``(M, M)``.
    """
    own = [_without_diagonal(part).min(axis=1) for part in (within_samples, within_references)]
    other = [between.min(axis=1), between.min(axis=0)]
    right = [np.where(a < b, 1.0, np.where(a == b, 0.5, 0.0)) for a, b in zip(own, other)]
    right[0][np.minimum(own[0], other[0]) >= WORST] = 1.0
    return 100.0 * float(np.concatenate(right).mean())


def _without_diagonal(distances: np.ndarray) -> np.ndarray:
    cleared = distances.copy()
    np.fill_diagonal(cleared, np.inf)
    return cleared


def shape_set_scores(
    samples: np.ndarray, references: np.ndarray, within_references: np.ndarray | None = None
) -> dict[str, float]:
    """All three scores.

    Args:
        samples: Normalised points ``(N, P, 3)``, NaN where a sample is not valid.
        references: Normalised points ``(M, P, 3)``.
        within_references: Distances ``(M, M)`` of the references where they are known.

    Returns:
        ``mmd_cd``, ``cov`` (percent) and ``one_nna`` (percent).
    """
    between = pairwise_chamfer(samples, references)
    own = pairwise_chamfer(samples, samples)
    theirs = pairwise_chamfer(references, references) if within_references is None else within_references
    return {
        "mmd_cd": minimum_matching(between),
        "cov": coverage(between),
        "one_nna": one_nearest_neighbour(own, between, theirs),
    }


def nearest_shapes(points: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest reference of each shape, by all points among those that are nearest by few.

    Args:
        points: Normalised points ``(N, P, 3)``.
        references: Normalised points ``(M, P, 3)``, all finite.

    Returns:
        Distances ``(N,)``, square roots of Chamfer distances, zero for a shape that is not valid; and the indices
        of the nearest references ``(N,)``, -1 for a shape that is not valid.
    """
    distances, indices = np.zeros(len(points)), np.full(len(points), -1)
    rows = np.flatnonzero(valid_shapes(points))
    # The nearest candidates by a few points, compared by all points.
    rough = chamfer_distances(points[rows, :COARSE], references[:, :COARSE])
    order = np.argsort(rough, axis=1)[:, :CANDIDATES]
    for row, few in zip(rows, order):
        exact = chamfer_distances(points[row : row + 1], references[few])[0]
        distances[row], indices[row] = exact.min() ** 0.5, few[exact.argmin()]
    return distances, indices


def halves(points: Sequence | np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint halves of a set, drawn at random: what a perfect generator would score."""
    order = np.random.default_rng(seed).permutation(len(points))
    middle = len(points) // 2
    return np.asarray(points)[order[:middle]], np.asarray(points)[order[middle : 2 * middle]]
