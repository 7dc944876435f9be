"""A union of primitives as a solid in normalised coordinates, with exact distances.

Letters: P points, V vertices, F faces.
"""

from functools import cached_property

import numpy as np
import trimesh

from wsrl.signals.shapes.solid import Solid
from wsrl.signals.shapes.soup import NORMALISED_RADIUS
from wsrl.signals.shapes.triangles import sample_triangles
from wsrl.signals.solids.meshing import mesh_union, onto_surface
from wsrl.signals.solids.nearest_point import UnionDistance
from wsrl.signals.solids.primitives import lengths
from wsrl.signals.solids.union import Union

RESOLUTION = 96


class ExactSolid(Solid):
    """A procedural shape; distances are exact up to ``nearest_point.ERROR_BOUND``, most of them to rounding.

    Args:
        shape: The union, in units of its own.
    """

    def __init__(self, shape: Union):
        self.shape = shape
        self._vertices, self._faces = mesh_union(shape, RESOLUTION)
        low, high = self._vertices.min(axis=0), self._vertices.max(axis=0)
        self.center = (low + high) / 2
        self.scale = float(lengths(self._vertices - self.center).max()) / NORMALISED_RADIUS
        self._distance = UnionDistance(shape, self._vertices, self._faces)
        self.quality = {
            "watertight": 1.0,
            "num_faces": len(self._faces),
            "num_bodies": len(shape.bodies),
            "blend": shape.blend / self.scale,
        }

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """Its boundary at a resolution of :data:`RESOLUTION` cells, vertices on the surface."""
        return trimesh.Trimesh((self._vertices - self.center) / self.scale, self._faces, process=False)

    def mesh_at(self, resolution: int) -> trimesh.Trimesh:
        """Its boundary in normalised coordinates."""
        vertices, faces = mesh_union(self.shape, resolution)
        return trimesh.Trimesh((vertices - self.center) / self.scale, faces, process=False)

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """See ``Solid``."""
        return self._distance(np.asarray(points, np.float64) * self.scale + self.center) / self.scale

    def sample_surface(self, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See ``Solid``: points of the mesh moved onto the surface, with the surface's own normals."""
        points, _ = sample_triangles(np.asarray(self.mesh.triangles), num, generator)
        points, gradient = onto_surface(self.shape, points * self.scale + self.center)
        return (points - self.center) / self.scale, gradient / np.maximum(lengths(gradient), 1e-12)[:, None]
