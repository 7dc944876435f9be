"""Primitives with exact signed distances, negative inside, and the gradients of these.

Every distance is the Euclidean distance to the surface, inside as well as outside, so its gradient has length 1 and
``p - distance * gradient`` is the closest point of the surface. On a medial axis, where several points are closest,
the gradient points away from one of them.

Letters: P points, E edges of a polygon. Points of the world are rows ``(P, 3)``; within a primitive's own frame a
coordinate is a row ``(3, P)``, so that each step of the arithmetic runs over memory in order.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

TINY = 1e-14
ON_EDGE = 1e-12
NEWTON_STEPS = 200
CREASE_POINTS = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Primitive(ABC):
    """A shape in its own frame, placed in the world.

    Attributes:
        center: Origin of the own frame in the world, ``(3,)``.
        rotation: World from own frame, ``(3, 3)``.
        rounding: Radius of a ball swept over the shape: the distance grows by so much everywhere.
    """

    center: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    rounding: float = 0.0

    def distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance ``(P,)`` and its gradient ``(P, 3)`` at points ``(P, 3)`` of the world, float64."""
        distance, gradient = self.own_distance(self.rotation.T @ (points - self.center).T)  # (P,), (3, P)
        return distance - self.rounding, gradient.T @ self.rotation.T

    def reach(self) -> float:
        """Radius of a ball about the centre that holds the whole shape."""
        return self.own_reach() + self.rounding

    def creases(self) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(P, 3)`` of the edges at which the outside reaches into the shape, and directions of the edges."""
        points, tangents = self.own_creases()
        return points @ self.rotation.T + self.center, tangents @ self.rotation.T

    def own_creases(self) -> tuple[np.ndarray, np.ndarray]:
        """The same in the own frame; most primitives have none."""
        return np.zeros((0, 3)), np.zeros((0, 3))

    @abstractmethod
    def own_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance ``(P,)`` and gradient ``(3, P)`` at points ``(3, P)`` of the own frame, without the rounding."""

    @abstractmethod
    def own_reach(self) -> float:
        """Radius of a ball about the origin of the own frame that holds the shape without its rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Box(Primitive):
    """A box.

    Attributes:
        half: Half of its sides, ``(3,)``.
    """

    half: np.ndarray

    def own_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`."""
        beyond = np.abs(points) - self.half[:, None]  # (3, P), the signed distances to the nearer plane of each pair
        out = np.maximum(beyond, 0)
        distance = column_lengths(out)
        gradient = np.copysign(out / np.maximum(distance, TINY), points)
        # inside, the nearest plane is the closest
        inside = np.flatnonzero(distance <= 0)
        axis = beyond[:, inside].argmax(axis=0)
        distance[inside] = beyond[axis, inside]
        gradient[:, inside] = 0
        gradient[axis, inside] = np.copysign(1.0, points[axis, inside])
        return distance, gradient

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return float(np.linalg.norm(self.half))


@dataclass(frozen=True, kw_only=True, eq=False)
class Capsule(Primitive):
    """All points within ``radius`` of a segment along the z axis.

    Attributes:
        half_length: Half the length of the segment.
        radius: Distance of the surface from the segment.
    """

    half_length: float
    radius: float

    def own_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`."""
        offset = points.copy()
        offset[2] -= np.clip(points[2], -self.half_length, self.half_length)
        return tube(offset, self.radius, (1.0, 0.0, 0.0))

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return self.half_length + self.radius


@dataclass(frozen=True, kw_only=True, eq=False)
class Torus(Primitive):
    """All points within ``minor`` of an arc in the xy plane, symmetric about the x axis; a whole circle makes a torus.

    Attributes:
        major: Radius of the arc.
        minor: Radius of the tube.
        half_angle: Half the angle of the arc, in radians.
    """

    major: float
    minor: float
    half_angle: float = np.pi

    def own_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`."""
        angle = np.arctan2(points[1], points[0])
        angle = np.clip(angle, -self.half_angle, self.half_angle)
        arc = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)]) * self.major
        return tube(points - arc, self.minor, (0.0, 0.0, 1.0))

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return self.major + self.minor


@dataclass(frozen=True, kw_only=True, eq=False)
class Revolution(Primitive):
    """A polygon turned about the z axis: cones, cylinders, discs, cups.

    Attributes:
        profile: Corners ``(E, 2)`` of a simple polygon as (radius >= 0, height), in either sense of rotation.
    """

    profile: np.ndarray

    def own_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`."""
        radius = column_lengths(points[:2])
        distance, slope_r, slope_z = polygon_distance(radius, points[2], self.profile)
        outwards = points[:2] / np.maximum(radius, TINY)
        outwards[:, radius <= TINY] = [[1.0], [0.0]]
        return distance, np.stack([outwards[0] * slope_r, outwards[1] * slope_r, slope_z])

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return float(np.linalg.norm(self.profile, axis=1).max())

    def own_creases(self) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`: circles through the corners that point inwards."""
        normals = outer_normals(self.profile)
        before = np.roll(normals, 1, axis=0)
        inwards = sense(self.profile) * (before[:, 0] * normals[:, 1] - before[:, 1] * normals[:, 0]) < 0
        apart = 1 + (before * normals).sum(axis=1)
        corners = self.profile + self.rounding * (before + normals) / np.maximum(apart, 1e-9)[:, None]
        corners = corners[inwards & (self.profile[:, 0] > 0)]
        angles = np.arange(CREASE_POINTS) * (2 * np.pi / CREASE_POINTS)
        along = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
        across = np.stack([-np.sin(angles), np.cos(angles), np.zeros_like(angles)], axis=1)
        circles = [radius * along + (0, 0, height) for radius, height in corners]
        return np.concatenate([np.zeros((0, 3)), *circles]), np.concatenate(
            [np.zeros((0, 3)), *[across] * len(circles)]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Ellipsoid(Primitive):
    """An ellipsoid.

    Attributes:
        axes: Half axes ``(3,)`` along x, y and z.
    """

    axes: np.ndarray

    def own_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`."""
        folded = np.abs(points)
        foot = ellipsoid_foot(folded, self.axes)  # (3, P) in the first octant
        normal = foot / self.axes[:, None] ** 2
        normal /= column_lengths(normal)
        distance = ((folded - foot) * normal).sum(axis=0)
        return distance, np.copysign(normal, points)

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return float(self.axes.max())


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Length ``(P,)`` of each row of ``(P, D)``."""
    return np.sqrt(np.einsum("pd,pd->p", vectors, vectors))


def column_lengths(vectors: np.ndarray) -> np.ndarray:
    """Length ``(P,)`` of each column of ``(D, P)``."""
    return np.sqrt(np.einsum("dp,dp->p", vectors, vectors))


def tube(offset: np.ndarray, radius: float, across: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance and gradient of all that lies within a radius of a curve.

    Args:
        offset: From the closest point of the curve to each point, ``(3, P)``.
        radius: Radius of the tube.
        across: A direction across the curve, the gradient on the curve itself.
    """
    far = column_lengths(offset)
    gradient = offset / np.maximum(far, TINY)
    gradient[:, far <= TINY] = np.array(across)[:, None]
    return far - radius, gradient


def polygon_distance(
    radius: np.ndarray, height: np.ndarray, profile: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance to the surface that a polygon turned about the axis has, and its gradient, in the half plane.

    Edges on the axis are inside the turned body and bound nothing.

    Args:
        radius: Distance of each point from the axis, ``(P,)``.
        height: Height of each point, ``(P,)``.
        profile: Corners ``(E, 2)``.

    Returns:
        The distance, and its slopes along the radius and along the height, ``(P,)`` each.
    """
    nearest, which = np.full(len(radius), np.inf), np.zeros(len(radius), np.int8)
    offset_r, offset_z = np.zeros((2, len(radius)))
    odd = np.zeros(len(radius), dtype=bool)
    for index, (start, end) in enumerate(zip(profile, np.roll(profile, -1, axis=0), strict=True)):
        if start[0] <= 0 and end[0] <= 0:
            continue
        across, up = end - start
        out, above = radius - start[0], height - start[1]
        # foot of the point on the edge, and from there to the point
        along = np.clip(out * (across / (across**2 + up**2)) + above * (up / (across**2 + up**2)), 0, 1)
        away_r, away_z = out - along * across, above - along * up
        # keep the nearest edge
        square = away_r**2 + away_z**2
        nearer = square < nearest
        np.minimum(nearest, square, out=nearest)
        np.copyto(which, index, where=nearer)
        np.copyto(offset_r, away_r, where=nearer)
        np.copyto(offset_z, away_z, where=nearer)
        if up != 0:  # a ray towards growing radius crosses this edge
            odd ^= ((height < start[1]) != (height < end[1])) & (out * abs(up) < above * (across * np.sign(up)))
    # inside where a ray crosses the border an odd number of times; the gradient points away from the foot
    far = np.sqrt(nearest)
    sign = np.where(odd, -1.0, 1.0)
    scale = sign / np.maximum(far, ON_EDGE)
    slope_r, slope_z = scale * offset_r, scale * offset_z
    # on an edge it is the outer normal of that edge
    on_edge = np.flatnonzero(far <= ON_EDGE)
    slope_r[on_edge], slope_z[on_edge] = outer_normals(profile)[which[on_edge]].T
    return sign * far, slope_r, slope_z


def outer_normals(profile: np.ndarray) -> np.ndarray:
    """Unit normals ``(E, 2)`` out of a polygon, of the edge that begins at each corner ``(E, 2)``."""
    edges = np.roll(profile, -1, axis=0) - profile
    return sense(profile) * np.stack([edges[:, 1], -edges[:, 0]], axis=1) / lengths(edges)[:, None]


def sense(profile: np.ndarray) -> float:
    """1 for a polygon with corners ``(E, 2)`` that runs from the first axis to the second, else -1."""
    following = np.roll(profile, -1, axis=0)
    return 1.0 if (profile[:, 0] * following[:, 1] - profile[:, 1] * following[:, 0]).sum() > 0 else -1.0


def ellipsoid_foot(points: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Closest point of an ellipsoid, ``(3, P)``.

    With y the point and e the half axes, the foot is ``e^2 y / (t + e^2)`` for the largest root t of
    ``F(t) = sum (e y / (t + e^2))^2 - 1``. F falls and is convex beyond its largest pole, so Newton's method climbs to
    the root from a lower bound of it without overshooting: from where one of the terms alone is 1, or from where the
    tangent at t = 0 is zero, which for points near the surface is the root nearly. A point in the plane of the two
    longer axes that has no root beyond the pole takes the pole, and its third coordinate from the surface.

    Args:
        points: Points ``(3, P)`` of the first octant.
        axes: Half axes ``(3,)``.

    Source: D. Eberly, Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid, section 2 (with Newton's
    method in place of bisection).
    """
    squares = axes[:, None] ** 2  # (3, 1)
    scaled = points * axes[:, None]  # (3, P)
    shortest = int(np.argmin(axes))
    apart = squares - squares[shortest]  # t + e^2 = u + apart, with u = t + e_min^2 free of cancellation
    # two lower bounds of the root (P,), and nearly the pole itself
    one_term = (scaled - apart).max(axis=0)
    level = (points / axes[:, None]) ** 2  # (3, P)
    tangent = squares[shortest] + (level.sum(axis=0) - 1) / np.maximum(2 * (level / squares).sum(axis=0), TINY)
    root = np.maximum(np.maximum(one_term, tangent), TINY**2)
    todo, left = np.arange(len(root)), scaled
    for _ in range(NEWTON_STEPS):
        below = root[todo] + apart
        terms = (left / below) ** 2  # (3, P)
        step = (terms.sum(axis=0) - 1) / np.maximum(2 * (terms / below).sum(axis=0), TINY)
        root[todo] += np.maximum(step, 0)
        unsettled = step > 1e-15 * root[todo]
        todo, left = todo[unsettled], left[:, unsettled]
        if len(todo) == 0:
            break
    foot = squares * points / (root + apart)
    on_pole = np.flatnonzero(points[shortest] <= TINY**2)
    rest = 1 - (np.delete(foot[:, on_pole] / axes[:, None], shortest, axis=0) ** 2).sum(axis=0)
    foot[shortest, on_pole] = axes[shortest] * np.sqrt(np.maximum(rest, 0))
    return foot
