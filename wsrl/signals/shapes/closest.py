"""Exact closest points on triangles, and the side on which a point lies where the surface around them tells it.

The side at a closest point is that of the pseudonormal there: of the face, the sum of both faces' at an edge, the
angle-weighted sum at a vertex (Bærentzen and Aanæs, Signed distance computation using the angle weighted pseudonormal,
2005). It is exact where the surface around the closest point is closed, which ``sides`` reports.

Letters: P points, T triangles, V vertices, E edges.
"""

import igl
import numpy as np

from wsrl.signals.shapes.orientation import OFFSET, edge_balance
from wsrl.signals.shapes.soup import join_vertices
from wsrl.signals.shapes.triangles import unit_normals

CORNER = 1e-5
"""Barycentric coordinates below this are zero: the closest point is on an edge or at a vertex."""
FOLDED = 1.0
"""Length of the sum of the unit normals of two neighbours that are 120 degrees apart."""


class ClosestPoint:
    """Distances to a set of triangles, its tree built once.

    Args:
        triangles: Corners ``(T, 3, 3)`` of triangles with an area, counter-clockwise from outside.
        doubtful: Triangles ``(T,)`` whose surroundings do not tell the side.
    """

    def __init__(self, triangles: np.ndarray, doubtful: np.ndarray | None = None):
        self._corners = np.ascontiguousarray(triangles.reshape(-1, 3))
        self._triangles = self._corners.reshape(-1, 3, 3)
        self._faces = np.arange(len(self._corners), dtype=np.int64).reshape(-1, 3)
        self._tree = igl.AABB()
        self._tree.init(self._corners, self._faces)
        self._doubtful = np.zeros(len(triangles), bool) if doubtful is None else doubtful
        self._normals: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of each of the points ``(P, 3)`` to the nearest triangle."""
        squared, _, _ = self._tree.squared_distance(self._corners, self._faces, np.ascontiguousarray(points))
        return np.sqrt(squared)

    def wall_thickness(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """How far it is from points of the surface through the solid to the other side, ``(P,)``; infinite if open.

        Args:
            points: Points ``(P, 3)`` on triangles.
            normals: Unit normals ``(P, 3)`` that point out.
        """
        hit, length, _ = self._tree.intersect_ray_first(
            self._corners, self._faces, np.ascontiguousarray(points - OFFSET * normals), -normals
        )
        return np.where(hit < 0, np.inf, length + OFFSET)

    def sides(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and side of points.

        Args:
            points: Points ``(P, 3)``, float64.

        Returns:
            The distance of each to the nearest triangle; and 1 where it is outside, -1 inside, 0 where the surface
            around the closest point does not tell.
        """
        if self._normals is None:
            self._normals = self._pseudonormals()
        squared, nearest, closest = self._tree.squared_distance(
            self._corners, self._faces, np.ascontiguousarray(points)
        )
        # on a face, on an edge or at a vertex: as many barycentric coordinates are zero
        corner = barycentric(self._triangles[nearest], closest) < CORNER  # (P, 3)
        zeros = corner.sum(axis=1)
        # the pseudonormal there, zero where the surface around it is not closed
        of_face, of_edge, of_vertex = self._normals
        normal = of_face[nearest]
        row = np.flatnonzero(zeros == 1)  # on the edge opposite to the corner whose coordinate is zero
        normal[row] = of_edge[nearest[row], (corner[row].argmax(axis=1) + 1) % 3]
        row = np.flatnonzero(zeros == 2)
        normal[row] = of_vertex[nearest[row], corner[row].argmin(axis=1)]
        # which way the point lies from its closest point; a triangle without area tells nothing
        side = np.sign(np.einsum("pi,pi->p", points - closest, normal))
        return np.sqrt(squared), np.where(zeros < 3, side, 0)

    def _pseudonormals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normals of faces ``(T, 3)``, edges and vertices ``(T, 3, 3)`` of each; zero where they tell nothing."""
        triangles = self._triangles
        vertices, faces = join_vertices(self._corners, self._faces)
        normals = unit_normals(triangles)
        edge, ends, net = edge_balance(faces, len(vertices))
        unsure = (np.bincount(edge.ravel(), minlength=len(net)) != 2) | (net != 0)
        of_edge = summed(edge, np.repeat(normals, 3, axis=0), len(net))
        # Where a surface folds back on itself, as meshes do along sharp edges, it may face the wrong way.
        doubtful = self._doubtful | (np.linalg.norm(of_edge, axis=1) < FOLDED)[edge].any(axis=1)
        unsure[edge[doubtful]] = True
        unsure_vertex = np.zeros(len(vertices), bool)
        unsure_vertex[ends[unsure]] = True
        of_vertex = summed(faces, np.repeat(normals, 3, axis=0) * angles(triangles).reshape(-1, 1), len(vertices))
        of_edge[unsure], of_vertex[unsure_vertex], normals[doubtful] = 0, 0, 0
        return normals, of_edge[edge], of_vertex[faces]


def summed(groups: np.ndarray, vectors: np.ndarray, num: int) -> np.ndarray:
    """Sums of vectors by place, ``(num, 3)``."""
    return np.stack([np.bincount(groups.ravel(), weights=vectors[:, axis], minlength=num) for axis in range(3)], axis=1)


def angles(triangles: np.ndarray) -> np.ndarray:
    """Angle ``(T, 3)`` at each corner of triangles ``(T, 3, 3)``."""
    following = np.roll(triangles, -1, axis=1) - triangles
    preceding = np.roll(triangles, 1, axis=1) - triangles
    length = np.linalg.norm(np.cross(following, preceding), axis=2)
    return np.arctan2(length, np.einsum("tki,tki->tk", following, preceding))


def barycentric(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Coordinates ``(P, 3)`` of points ``(P, 3)`` in the planes of their triangles ``(P, 3, 3)``, which have areas."""
    # p = a + second * u + third * v: the normal equations of least squares, by Cramer's rule
    u, v, w = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0], points - triangles[:, 0]
    uu, uv, vv, wu, wv = (np.einsum("pi,pi->p", a, b) for a, b in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    scale = np.maximum(uu * vv - uv * uv, 1e-300)
    second, third = (vv * wu - uv * wv) / scale, (uu * wv - uv * wu) / scale
    return np.stack([1 - second - third, second, third], axis=1)


def touching_others(triangles: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Which triangles ``(T, 3, 3)`` have a corner where triangles of another kind meet them, ``(T,)``."""
    corners = triangles.reshape(-1, 3)
    vertices, faces = join_vertices(corners, np.arange(len(corners)).reshape(-1, 3))
    # smallest and largest kind that meets at each vertex
    low, high = np.full(len(vertices), kinds.max()), np.full(len(vertices), kinds.min())
    np.minimum.at(low, faces, kinds[:, None])
    np.maximum.at(high, faces, kinds[:, None])
    return (low != high)[faces].any(axis=1)
