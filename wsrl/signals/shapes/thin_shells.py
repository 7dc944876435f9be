"""Sheets without a volume, made solid: all points nearer to them than half a thickness.

Letters: P points, S surface samples, T triangles.
"""

import numpy as np

from wsrl.signals.shapes.closest import ClosestPoint
from wsrl.signals.shapes.orientation import edge_balance
from wsrl.signals.shapes.soup import join_vertices
from wsrl.signals.shapes.triangles import area_vectors, double_areas, sample_triangles

HALF_THICKNESS = 0.01


class ThickSheets:
    """Sheets thickened by ``HALF_THICKNESS`` to all sides.

    Args:
        triangles: Corners ``(T, 3, 3)`` of triangles with an area.
    """

    def __init__(self, triangles: np.ndarray):
        self.triangles = triangles
        self._closest = ClosestPoint(triangles)
        self._areas = double_areas(triangles) / 2
        self._rims = rims(triangles)

    @property
    def area(self) -> float:
        """Area of the thickened surface: both sides, and half a cylinder along each rim."""
        return float(2 * self._areas.sum() + np.pi * HALF_THICKNESS * self._rim_lengths().sum())

    def _rim_lengths(self) -> np.ndarray:
        return np.linalg.norm(self._rims[:, 1] - self._rims[:, 0], axis=1)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(P,)`` of points ``(P, 3)``, negative inside the thickness."""
        return self._closest.distance(points) - HALF_THICKNESS

    def sample(self, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points evenly over the thickened surface, those inside other sheets' thickness among them.

        Returns:
            Points ``(num, 3)`` and unit normals ``(num, 3)``.
        """
        lengths = self._rim_lengths()
        # how many on the half cylinders along the rims, by area
        on_rims = generator.binomial(num, 1 - 2 * self._areas.sum() / self.area)
        points, normals = sample_triangles(self.triangles, num - on_rims, generator)
        # the flat parts, on either side
        normals *= np.where(generator.random(len(normals)) < 0.5, -1, 1)[:, None]
        # the rims, by length, at an even angle from one side over the edge to the other
        rim = np.searchsorted(np.cumsum(lengths), generator.random(on_rims) * lengths.sum(), side="right")
        start, end, away, up = np.moveaxis(self._rims[rim.clip(0, max(len(lengths) - 1, 0))], 1, 0)
        angle = generator.uniform(-np.pi / 2, np.pi / 2, (on_rims, 1))
        round_normals = np.cos(angle) * away + np.sin(angle) * up
        round_points = start + generator.random((on_rims, 1)) * (end - start)
        normals = np.concatenate([normals, round_normals])
        return np.concatenate([points, round_points]) + HALF_THICKNESS * normals, normals


def rims(triangles: np.ndarray) -> np.ndarray:
    """Edges that only one of the triangles ``(T, 3, 3)`` has.

    Returns:
        For each its two ends, the unit vector in the triangle's plane away from it, and the triangle's unit normal,
        ``(edges, 4, 3)``.
    """
    corners = triangles.reshape(-1, 3)
    vertices, faces = join_vertices(corners, np.arange(len(corners)).reshape(-1, 3))
    edge_of, _, _ = edge_balance(faces, len(vertices))
    # sides whose edge no other triangle has
    face, side = np.nonzero(np.bincount(edge_of.ravel())[edge_of] == 1)
    start, end = triangles[face, side], triangles[face, (side + 1) % 3]
    up = area_vectors(triangles[face])
    away = np.cross(end - start, up)
    unit = [vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-300) for vector in (away, up)]
    return np.stack([start, end, *unit], axis=1)
