"""What a shape is to the fitting: a solid with a signed distance, negative inside.

Letters: P points, S surface samples, V vertices, F faces.
"""

import igl
import numpy as np
import trimesh

from wsrl.errors import SignalError

NORMALISED_RADIUS = 0.9


class Solid:
    """A solid in normalised coordinates; sources with exact distances derive from it.

    Attributes:
        mesh: Its boundary, normals pointing out.
        center: Point of the file's coordinates that became the origin.
        scale: Length in the file's units of one normalised unit: ``file = normalised * scale + center``.
        quality: Plain numbers that tell how good the boundary is.
        verdict: ``used`` as it came, or ``repaired``.
        reasons: What was repaired.
    """

    mesh: trimesh.Trimesh
    center: np.ndarray = np.zeros(3)
    scale: float = 1.0
    quality: dict[str, float] = {}  # noqa: RUF012
    verdict: str = "used"
    reasons: tuple[str, ...] = ()

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points to the boundary, negative inside.

        Args:
            points: Points ``(P, 3)`` in normalised coordinates.

        Returns:
            Distances ``(P,)``, float64.
        """
        raise NotImplementedError

    def sample_surface(self, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points spread evenly over the boundary.

        Args:
            num: How many.
            generator: Source of the randomness.

        Returns:
            Points ``(num, 3)`` and unit normals ``(num, 3)``.
        """
        return sample_triangles(np.asarray(self.mesh.triangles), num, generator)


def sample_triangles(triangles: np.ndarray, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points evenly over triangles, by area.

    Args:
        triangles: Corners ``(F, 3, 3)``.
        num: How many points.
        generator: Source of the randomness.

    Returns:
        Points ``(num, 3)`` and the unit normals ``(num, 3)`` of their triangles.
    """
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    double_areas = np.linalg.norm(normals, axis=1)
    cumulated = np.cumsum(double_areas)
    chosen = np.searchsorted(cumulated, generator.random(num) * cumulated[-1], side="right").clip(0, len(triangles) - 1)
    u, v = generator.random((2, num, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    a, b, c = np.moveaxis(triangles[chosen], 1, 0)
    return a + u * (b - a) + v * (c - a), normals[chosen] / double_areas[chosen, None]


class MeshSolid(Solid):
    """A soup of triangles made a solid.

    Args:
        mesh: Triangles in the file's units.

    Raises:
        SignalError: It encloses nothing and cannot be made to.
    """

    def __init__(self, mesh: trimesh.Trimesh):
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
        if not len(faces):
            raise SignalError("the mesh has no faces")
        self.center, self.scale = normalisation(vertices[np.unique(faces)])
        self.mesh = trimesh.Trimesh((vertices - self.center) / self.scale, faces, process=False)
        self._vertices, self._faces = np.asarray(self.mesh.vertices), faces
        self._tree = igl.AABB()
        self._tree.init(self._vertices, self._faces)
        self._winding = igl.FastWindingNumberBVH()
        self._winding.init(self._vertices, self._faces)
        self.quality = {"num_faces": len(faces)}

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """See ``Solid``; the sign is that of the winding number, the distance that to the closest point."""
        points = np.ascontiguousarray(points, np.float64)
        squared, _, _ = self._tree.squared_distance(self._vertices, self._faces, points)
        inside = self._winding.winding_number(points) > 0.5
        return np.where(inside, -1.0, 1.0) * np.sqrt(squared)


def normalisation(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre of the bounding box, and the scale that puts the farthest vertex at ``NORMALISED_RADIUS``.

    Args:
        vertices: Vertices ``(V, 3)`` that faces use.

    Raises:
        SignalError: All vertices are one point.
    """
    center = (vertices.min(0) + vertices.max(0)) / 2
    scale = float(np.linalg.norm(vertices - center, axis=1).max()) / NORMALISED_RADIUS
    if not scale > 0:
        raise SignalError("all vertices are one point")
    return center, scale
