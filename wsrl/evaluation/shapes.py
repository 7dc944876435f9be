"""Scores of a reconstructed surface against the true one, and the D2 shape distribution.

Everything is in normalised coordinates: the shape lies in the unit sphere, the field in the cube [-1, 1]^3. Definitions
and the scores of an empty mesh follow the evaluation of Occupancy Networks; the F-score is that of Tatarchenko et al.
Distances go from sampled points to sampled points, so a score of two samples of one surface is not perfect; that limit
depends on the number of points and is reported as ``f_score_ceiling``.

Letters: N points of the reconstructed surface, M points of the true surface, H points in the volume, F faces.
Source: arXiv 1812.03828, section 4 and its code; arXiv 1905.03678, section 5 (threshold); Osada et al. 2002 (D2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import trimesh

CUBE_SIDE = 2.0
THRESHOLD = 0.01 * CUBE_SIDE  # the 1% of "F-score at 1%"
SURFACE_POINTS = 20_000
DIAGONAL = 3**0.5 * CUBE_SIDE  # no two points of the cube are farther apart
# An empty mesh gets the worst value of each score instead of none, so that it weighs in every mean.
EMPTY_SCORES: Mapping[str, float] = {
    "chamfer_l1": DIAGONAL,
    "chamfer_l2_squared": DIAGONAL**2,
    "f_score": 0.0,
    "normal_consistency": 0.0,
}
D2_BINS = 64
D2_PAIRS = 100_000
D2_LARGEST = 2.0  # diameter of the unit sphere


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a surface.

    Attributes:
        points: Points ``(N, 3)``, uniform over the area.
        normals: Unit normals of the surface there, ``(N, 3)``; their sign does not matter.
    """

    points: np.ndarray
    normals: np.ndarray

    def subset(self, num_points: int, seed: int) -> "SurfacePoints":
        """So many of the points, drawn without putting back; all of them where there are no more."""
        if num_points >= len(self.points):
            return self
        keep = np.random.default_rng(seed).choice(len(self.points), num_points, replace=False)
        return SurfacePoints(self.points[keep], self.normals[keep])


def sample_mesh(mesh: "trimesh.Trimesh", num_points: int, seed: int) -> SurfacePoints:
    """Points of a mesh that is not empty, uniform over its area, with the normals of their faces.

    Args:
        mesh: The mesh.
        num_points: How many.
        seed: Seed of the draw; no other random numbers are touched.

    Returns:
        Float32 points and normals.
    """
    from wsrl.signals.shapes.triangles import sample_triangles

    triangles = np.asarray(mesh.vertices)[np.asarray(mesh.faces)]  # (F, 3, 3)
    points, normals = sample_triangles(triangles, num_points, np.random.default_rng(seed))
    return SurfacePoints(points.astype(np.float32), normals.astype(np.float32))


@dataclass(frozen=True)
class Matches:
    """Every point of two surfaces with the nearest point of the other one.

    Attributes:
        to_true: Distance ``(N,)`` of each reconstructed point to the nearest true one (accuracy, precision).
        to_reconstruction: Distance ``(M,)`` of each true point to the nearest reconstructed one (completeness, recall).
        cosines_true: Absolute cosine ``(N,)`` between the normals of each reconstructed point and of that true point.
        cosines_reconstruction: The same ``(M,)`` for each true point.
    """

    to_true: np.ndarray
    to_reconstruction: np.ndarray
    cosines_true: np.ndarray
    cosines_reconstruction: np.ndarray

    @property
    def chamfer_l1(self) -> float:
        """Mean Euclidean distance to the nearest point, averaged over the two directions."""
        return float(self.to_true.mean() + self.to_reconstruction.mean()) / 2

    @property
    def chamfer_l2_squared(self) -> float:
        """Mean squared distance to the nearest point, averaged over the two directions."""
        return float(np.square(self.to_true).mean() + np.square(self.to_reconstruction).mean()) / 2

    def f_score(self, threshold: float = THRESHOLD) -> float:
        """Harmonic mean of the shares of points of either surface that are nearer than the threshold to the other."""
        precision, recall = (float((part < threshold).mean()) for part in (self.to_true, self.to_reconstruction))
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def normal_consistency(self) -> float:
        """Mean absolute cosine between the normals of nearest points, averaged over the two directions."""
        return float(self.cosines_true.mean() + self.cosines_reconstruction.mean()) / 2


def match(reconstruction: SurfacePoints, original: SurfacePoints) -> Matches:
    """Find the nearest points between two surfaces, both ways.

    Args:
        reconstruction: The reconstruction.
        original: The original.
    """
    to_true, nearest_true = nearest(reconstruction.points, original.points)
    to_reconstruction, nearest_reconstructed = nearest(original.points, reconstruction.points)
    return Matches(
        to_true,
        to_reconstruction,
        np.abs(np.einsum("nd,nd->n", reconstruction.normals, original.normals[nearest_true])),
        np.abs(np.einsum("nd,nd->n", original.normals, reconstruction.normals[nearest_reconstructed])),
    )


def nearest(points: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point ``(N, 3)`` to the nearest of the references ``(M, 3)``, and its index among them."""
    from scipy.spatial import cKDTree

    return cKDTree(references).query(points, workers=1)


def volumetric_iou(reconstruction: np.ndarray, original: np.ndarray) -> float:
    """Intersection over union of two solids.

    Args:
        reconstruction: Whether each of the points ``(H,)``, uniform in the volume, is inside the reconstruction.
        original: Whether it is inside the original.

    Returns:
        A number in [0, 1]; NaN where no point is inside either, which says nothing about them.
    """
    union = np.count_nonzero(reconstruction | original)
    return np.count_nonzero(reconstruction & original) / union if union else float("nan")


def score_shape(
    mesh: "trimesh.Trimesh", field_inside: np.ndarray, signal, num_points: int = SURFACE_POINTS, seed: int = 0
) -> dict[str, float]:
    """All scores of one reconstruction.

    Args:
        mesh: Mesh of the field, normalised; it may be empty.
        field_inside: Whether the field calls each held-out point of the signal inside, ``(H,)``.
        signal: The original, a :class:`wsrl.signals.shapes.shape.ShapeSignal`.
        num_points: Points on either surface, at most as many as the signal has.
        seed: Seed of the points.

    Returns:
        ``chamfer_l1``, ``chamfer_l2_squared``, ``f_score`` at 1%, ``normal_consistency``, ``iou``, ``empty`` (1 where
        the mesh has no face; its scores are the worst there are), and ``f_score_ceiling``, the F-score between two
        samples of the reconstructed surface, beyond which no reconstruction of it comes with so many points.
    """
    iou = volumetric_iou(np.asarray(field_inside), np.asarray(signal.heldout_distances).reshape(-1) < 0)
    if not len(mesh.faces):
        return {**EMPTY_SCORES, "f_score_ceiling": float("nan"), "iou": iou, "empty": 1.0}
    # Equally many points of both surfaces; a second sample of the reconstruction says how high the F-score can be.
    true = SurfacePoints(np.asarray(signal.surface), np.asarray(signal.normals)).subset(num_points, seed)
    surface, again = (sample_mesh(mesh, len(true.points), seed + extra) for extra in (0, 1))
    matches = match(surface, true)
    return {
        "chamfer_l1": matches.chamfer_l1,
        "chamfer_l2_squared": matches.chamfer_l2_squared,
        "f_score": matches.f_score(),
        "normal_consistency": matches.normal_consistency,
        "f_score_ceiling": float((nearest(again.points, surface.points)[0] < THRESHOLD).mean()),
        "iou": iou,
        "empty": 0.0,
    }


def d2_histogram(points: np.ndarray, seed: int, num_bins: int = D2_BINS) -> np.ndarray:
    """The D2 shape distribution: distances between ``D2_PAIRS`` random pairs of different surface points.

    Args:
        points: Points ``(N, 3)``, uniform over the surface, in normalised coordinates.
        seed: Seed of the pairs.
        num_bins: Bins of equal width, up to ``D2_LARGEST``; the last one also takes what lies beyond.

    Returns:
        Share of the pairs in each bin, ``(num_bins,)`` float32; they add up to one.

    Source: Osada, Funkhouser, Chazelle, Dobkin 2002, "Shape distributions", section 3.
    """
    generator = np.random.default_rng(seed)
    first = generator.integers(len(points), size=D2_PAIRS)
    second = (first + generator.integers(1, len(points), size=D2_PAIRS)) % len(points)
    distances = np.linalg.norm(np.asarray(points, dtype=np.float64)[first] - points[second], axis=1)
    counts, _ = np.histogram(distances.clip(max=D2_LARGEST), bins=num_bins, range=(0.0, D2_LARGEST))
    return (counts / D2_PAIRS).astype(np.float32)
