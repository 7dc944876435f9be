"""Exact signed distance of a union: the foot on one body where that is provably closest, a search elsewhere.

The implicit function f of a union is never steeper than 1, so the distance is at least |f|. Where the foot of a point
on its deepest (or nearest) body lies on the surface of the union and is |f| away, it is the closest point: this settles
all points outside a sharp union and most others, to rounding. The rest (points within a body whose foot is covered by
another body, points near a blend) start from the nearest of a dense set of surface points and from the nearest point of
a mesh, go down to a closest point by Newton's method on the surface, and are compared with creases between bodies. What
they get is the distance to a point of the surface, so never too small; the tests bound the excess by
:data:`ERROR_BOUND`.

Letters: P points, S samples of the surface, B bodies.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from wsrl.signals.shapes.solid import along_a_curve
from wsrl.signals.solids.meshing import CONVERGED, onto_surface
from wsrl.signals.solids.primitives import lengths
from wsrl.signals.solids.union import Union, blocks

ERROR_BOUND = 1e-4  # of a shape in the unit sphere
ON_SURFACE = 1e-9
NEARLY_ON_SURFACE = 1e-5
DIFFERENCE = 1e-6
ENOUGH = 1e-6
NEWTON_STEPS = 10
COPIES = 8  # shifted copies of each surface point near a blend or crease
CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class UnionSurface:
    """Points all over the surface of a union, to start from.

    Attributes:
        points: Points ``(S, 3)`` of the surface, denser on blends.
        creases: Points ``(S', 3)`` of the curves at which the outside reaches into the shape: where two bodies of a
            sharp union meet, and edges of bodies.
        tangents: Directions ``(S', 3)`` of these curves, unit length.
    """

    points: np.ndarray
    creases: np.ndarray
    tangents: np.ndarray

    @classmethod
    def of(cls, shape: Union, vertices: np.ndarray, spacing: float) -> "UnionSurface":
        """Points of the surface, made dense where the search needs them.

        Args:
            shape: The union.
            vertices: Points ``(V, 3)`` all over its surface.
            spacing: Largest distance of neighbours among them, about.
        """
        distances, _ = shape.parts(vertices)
        second = np.partition(distances, 1, axis=0)[1]
        shifts = np.random.default_rng(0).uniform(-1, 1, (COPIES, 1, 3)) * spacing
        edges = [np.concatenate(part) for part in zip(*(body.creases() for body in shape.bodies), strict=True)]
        free = np.abs(shape.value(edges[0])[0]) < ON_SURFACE
        edges = [part[free] for part in edges]
        if shape.blend > 0:
            near = vertices[second < shape.blend + spacing]
            dense, _ = onto_surface(shape, (near + shifts).reshape(-1, 3))
            dense = dense[np.abs(shape.value(dense)[0]) < ON_SURFACE]
            return cls(np.concatenate([vertices, dense]), *edges)
        near = vertices[second < 1.5 * spacing]
        meetings = crease_points(shape, (near + 1.5 * shifts).reshape(-1, 3))
        return cls(vertices, *(np.concatenate(parts) for parts in zip(edges, meetings, strict=True)))


def crease_points(shape: Union, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the curves where two bodies meet, and the directions of the curves there.

    Args:
        shape: A sharp union.
        starts: Points ``(S, 3)`` near the curves.
    """
    distances, _ = shape.parts(starts)
    pair = np.argsort(np.abs(distances), axis=0, kind="stable")[:2]  # (2, S)
    points, todo = starts.copy(), np.arange(len(starts))
    for _ in range(6):
        distances, gradients = shape.parts(points[todo])
        a, b = distances[pair[:, todo], np.arange(len(todo))]
        first, second = gradients[pair[:, todo], np.arange(len(todo))]
        # the point where the two tangent planes meet that is closest to the present one
        cosine = np.einsum("pd,pd->p", first, second)
        apart = np.maximum(1 - cosine**2, 1e-3)
        points[todo] -= ((a - cosine * b) / apart)[:, None] * first + ((b - cosine * a) / apart)[:, None] * second
        todo = todo[np.maximum(np.abs(a), np.abs(b)) > CONVERGED]
        if len(todo) == 0:
            break
    distances, gradients = shape.parts(points)
    rows = np.arange(len(points))
    tangents = np.cross(*gradients[pair, rows])
    size = lengths(tangents)
    good = (np.abs(distances[pair, rows]).max(axis=0) < ON_SURFACE) & (distances.min(axis=0) > -ON_SURFACE)
    good &= size > 0.05
    return points[good], tangents[good] / size[good, None]


class UnionDistance:
    """Signed distance of one union, with a search structure that is made when it is first needed."""

    def __init__(self, shape: Union, vertices: np.ndarray, faces: np.ndarray):
        """Keep the union and a mesh of it, vertices ``(V, 3)`` on its surface and faces ``(F, 3)``."""
        self.shape = shape
        self._mesh = vertices, faces
        edges = vertices[faces[:, 0]] - vertices[faces[:, 1]]
        self._spacing = 2 * float(np.median(lengths(edges))) if len(edges) else 0.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(P,)`` of points ``(P, 3)``, float64, negative inside."""
        value, upper = np.empty(len(points)), np.empty(len(points))
        for block in blocks(len(points)):
            value[block], upper[block] = self.bounds(points[block])
        far = np.abs(value)
        hard = np.flatnonzero(upper > far + ENOUGH)
        hard = hard[along_a_curve(points[hard])]  # neighbours one after the other look at the same parts of the trees
        for start in range(0, len(hard), CHUNK):
            rows = hard[start : start + CHUNK]
            upper[rows] = self.search(points[rows], upper[rows])
        return np.copysign(np.maximum(far, upper), value)

    def bounds(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The implicit function ``(P,)``, whose size bounds the distance from below, and an upper bound ``(P,)``."""
        distances, gradients = self.shape.parts(points)
        value, _ = self.shape.join(distances, gradients)
        upper = np.abs(value)
        if len(self.shape.bodies) == 1:
            return value, upper
        # outside a sharp union the function is the distance; elsewhere the foot on one body may be the closest point
        unsure = np.flatnonzero(value < 0) if self.shape.blend == 0 else np.arange(len(points))
        best = distances[:, unsure].argmin(axis=0)
        reach = distances[best, unsure]
        feet = points[unsure] - reach[:, None] * gradients[best, unsure]
        on_surface = np.abs(self.shape.value(feet)[0]) < ON_SURFACE
        upper[unsure] = np.where(on_surface, np.abs(reach), np.inf)
        return value, upper

    def search(self, points: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Distance ``(P,)`` to the surface by search.

        Args:
            points: Points ``(P, 3)``, one at least.
            upper: The distance to the foot on the nearest body, ``(P,)``, infinite where another body covers it. Where
                it is finite for a point that is not settled, the point is outside a blend: of all parts of the surface
                that are parts of one body's that foot is the closest point, so only blends can be closer.
        """
        sampled, mesh_tree, tree, crease_tree = self._trees
        far, nearest = tree.query(points)
        best = np.minimum(upper, far)
        # The sample is dense where the surface is curved; the mesh is dense everywhere and right where it is flat.
        starts = sampled.points[nearest]
        covered = np.flatnonzero(np.isinf(upper))
        on_mesh, _ = onto_surface(self.shape, mesh_tree.squared_distance(*self._mesh, points[covered])[2], steps=1)
        closer = lengths(on_mesh - points[covered]) < far[covered]
        apart = lengths(on_mesh - starts[covered]) > self._spacing  # two points of the surface may be the closest
        second = np.where(closer[:, None], starts[covered], on_mesh)[apart]
        starts[covered[closer]] = on_mesh[closer]
        # go down from all starts that can lead to anything closer
        leads = np.flatnonzero(far < upper + self._spacing)
        rows, starts = np.concatenate([leads, covered[apart]]), np.concatenate([starts[leads], second])
        np.minimum.at(best, rows, descend(self.shape, points[rows], starts))
        if crease_tree is not None:
            best = np.minimum(best, self.crease_distance(points, *crease_tree.query(points)))
        return best

    @cached_property
    def _trees(self):
        from igl import AABB
        from scipy.spatial import cKDTree

        sampled = UnionSurface.of(self.shape, self._mesh[0], self._spacing)
        mesh_tree = AABB()
        mesh_tree.init(*self._mesh)
        # of points on surfaces, trees of this kind answer five times faster than the balanced ones of the default
        build = partial(cKDTree, leafsize=32, compact_nodes=False, balanced_tree=False)
        return sampled, mesh_tree, build(sampled.points), build(sampled.creases) if len(sampled.creases) else None

    def crease_distance(self, points: np.ndarray, far: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Distance ``(P,)`` to the creases: to the tangent at the nearest point of them, where that is on the surface.

        Args:
            points: Points ``(P, 3)``.
            far: Distance to the nearest of the points of the creases, ``(P,)``.
            nearest: Which that is, ``(P,)``.
        """
        sampled = self._trees[0]
        feet, tangents = sampled.creases[nearest], sampled.tangents[nearest]
        along = np.einsum("pd,pd->p", points - feet, tangents)
        feet = feet + np.clip(along, -self._spacing, self._spacing)[:, None] * tangents
        ends_here = np.abs(self.shape.value(feet)[0]) > NEARLY_ON_SURFACE
        return np.where(ends_here, far, lengths(points - feet))


def descend(shape: Union, points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Distance ``(P,)`` to the surface after moving points of it closer; infinite where none is found.

    Args:
        shape: The union.
        points: Points ``(P, 3)`` whose distance is sought.
        starts: A point near the surface for each, ``(P, 3)``.
    """
    feet = starts.copy()
    value, gradient = shape.value(feet)
    far = np.where(np.abs(value) < ON_SURFACE, lengths(points - feet), np.inf)
    damping = np.ones(len(points))
    todo = np.arange(len(points))
    for _ in range(NEWTON_STEPS):
        if len(todo) == 0:
            break
        step = tangential_step(shape, points[todo], feet[todo], gradient[todo]) * damping[todo, None]
        moved, _ = onto_surface(shape, feet[todo] + step, steps=2)
        value, slope = shape.value(moved)
        moved -= value[:, None] * slope  # a last step, too short to turn the gradient
        reached = lengths(points[todo] - moved)
        gain = far[todo] - reached
        better = (gain > 0) & (np.abs(value) < NEARLY_ON_SURFACE)
        feet[todo[better]], far[todo[better]], gradient[todo[better]] = moved[better], reached[better], slope[better]
        damping[todo[~better]] /= 4  # it went too far; where there is nothing to gain the step is soon nothing
        todo = todo[np.where(better, gain > ENOUGH, damping[todo] * lengths(step) > ENOUGH)]
    return far


def tangential_step(shape: Union, points: np.ndarray, feet: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Newton's step ``(P, 3)`` along the surface towards the point closest to each point.

    Args:
        shape: The union.
        points: Points ``(P, 3)``.
        feet: Points of the surface ``(P, 3)``.
        gradient: Gradient of the implicit function at these, ``(P, 3)``.
    """
    size = np.maximum(lengths(gradient), 1e-3)
    normal = gradient / size[:, None]
    helper = np.eye(3)[np.abs(normal).argmin(axis=1)]
    first = np.cross(normal, helper)
    first /= lengths(first)[:, None]
    second = np.cross(normal, first)
    away = feet - points
    pull = -np.einsum("pd,pd->p", away, normal) / size  # the multiplier of f = 0
    bend_first = (shape.value(feet + DIFFERENCE * first)[1] - gradient) * (pull / DIFFERENCE)[:, None] + first
    bend_second = (shape.value(feet + DIFFERENCE * second)[1] - gradient) * (pull / DIFFERENCE)[:, None] + second
    a, b = np.einsum("pd,pd->p", bend_first, first), np.einsum("pd,pd->p", bend_first, second)
    c = np.einsum("pd,pd->p", bend_second, second)
    u, v = np.einsum("pd,pd->p", away, first), np.einsum("pd,pd->p", away, second)
    determinant = a * c - b * b
    convex = (determinant > 1e-3) & (a + c > 0)  # else a plain step down the slope
    safe = np.where(convex, determinant, 1)
    along_first = np.where(convex, (c * u - b * v) / safe, u)
    along_second = np.where(convex, (a * v - b * u) / safe, v)
    step = -along_first[:, None] * first - along_second[:, None] * second
    longest = np.maximum(lengths(step), 1e-30)
    return step * np.minimum(1, 0.05 / longest)[:, None]
