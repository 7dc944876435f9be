"""Primitives with exact signed distances, negative inside, and the gradients of these.

Every distance is the Euclidean distance to the surface, inside as well as outside, so its gradient has length 1 and
``p - distance * gradient`` is the closest point of the surface. On a medial axis, where several points are closest,
the gradient points away from one of them.

Letters: P points, E edges of a polygon.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

TINY = 1e-14
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
        """Signed distance ``(P,)`` and its gradient ``(P, 3)``.

        Args:
            points: Points ``(P, 3)`` of the world, float64.
        """
        distance, gradient = self.own_distance((points - self.center) @ self.rotation)
        return distance - self.rounding, gradient @ self.rotation.T

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
        """Distance and gradient in the own frame, without the rounding.

        Args:
            points: Points ``(P, 3)`` of the own frame.
        """

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
        sign = np.where(points < 0, -1.0, 1.0)
        beyond = np.abs(points) - self.half  # (P, 3), the signed distances to the nearer plane of each pair
        out = np.maximum(beyond, 0)
        far = lengths(out)
        axis = beyond.argmax(axis=1)
        inside = far <= 0
        gradient = out / np.maximum(far, TINY)[:, None]
        gradient[inside] = np.eye(3)[axis[inside]]
        return np.where(inside, beyond[np.arange(len(axis)), axis], far), gradient * sign

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
        offset[:, 2] -= np.clip(points[:, 2], -self.half_length, self.half_length)
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
        angle = np.arctan2(points[:, 1], points[:, 0])
        angle = np.clip(angle, -self.half_angle, self.half_angle)
        arc = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1) * self.major
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
        radius = np.hypot(points[:, 0], points[:, 1])
        distance, slope = polygon_distance(np.stack([radius, points[:, 2]], axis=1), self.profile)
        safe = np.maximum(radius, TINY)
        outwards = np.where(radius[:, None] > TINY, points[:, :2] / safe[:, None], [[1.0, 0.0]])
        return distance, np.concatenate([outwards * slope[:, :1], slope[:, 1:]], axis=1)

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return float(np.linalg.norm(self.profile, axis=1).max())

    def own_creases(self) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Primitive`: circles through the corners that point inwards."""
        edges = np.roll(self.profile, -1, axis=0) - self.profile
        normals = sense(self.profile) * np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= lengths(normals)[:, None]  # of the edge that begins at each corner
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
        foot = ellipsoid_foot(np.abs(points), self.axes)  # (P, 3) in the first octant
        normal = foot / self.axes**2
        normal /= lengths(normal)[:, None]
        distance = ((np.abs(points) - foot) * normal).sum(axis=1)
        return distance, normal * np.where(points < 0, -1.0, 1.0)

    def own_reach(self) -> float:
        """See :class:`Primitive`."""
        return float(self.axes.max())


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Length ``(P,)`` of each row.

    Args:
        vectors: Vectors ``(P, D)``.
    """
    return np.sqrt(np.einsum("pd,pd->p", vectors, vectors))


def tube(offset: np.ndarray, radius: float, across: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance and gradient of all that lies within a radius of a curve.

    Args:
        offset: From the closest point of the curve to each point, ``(P, 3)``.
        radius: Radius of the tube.
        across: A direction across the curve, the gradient on the curve itself.
    """
    far = lengths(offset)
    gradient = offset / np.maximum(far, TINY)[:, None]
    gradient[far <= TINY] = across
    return far - radius, gradient


def polygon_distance(points: np.ndarray, profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the surface that a polygon turned about the axis has, and its gradient, in the half plane.

    Edges on the axis are inside the turned body and bound nothing.

    Args:
        points: Points ``(P, 2)``, (radius, height).
        profile: Corners ``(E, 2)``.
    """
    radius, height = points.T.copy()
    best = np.full(len(points), np.inf)
    offset_r, offset_z, normal_r, normal_z = np.zeros((4, len(points)))
    odd = np.zeros(len(points), dtype=bool)
    ends = np.roll(profile, -1, axis=0)
    turn = sense(profile)
    for start, end in zip(profile, ends, strict=True):
        if start[0] <= 0 and end[0] <= 0:
            continue
        across, up = end - start
        out, above = radius - start[0], height - start[1]
        # foot of the point on the edge, and from there to the point
        along = np.clip((out * across + above * up) / (across**2 + up**2), 0, 1)
        away_r, away_z = out - along * across, above - along * up
        square = away_r**2 + away_z**2
        # keep the nearest edge, and its outer normal for points on it
        nearer = square < best
        np.copyto(best, square, where=nearer)
        np.copyto(offset_r, away_r, where=nearer)
        np.copyto(offset_z, away_z, where=nearer)
        np.copyto(normal_r, turn * up / np.hypot(across, up), where=nearer)
        np.copyto(normal_z, -turn * across / np.hypot(across, up), where=nearer)
        if up != 0:  # a ray towards growing radius crosses this edge
            odd ^= ((height < start[1]) != (height < end[1])) & (out * abs(up) < above * across * np.sign(up))
    # inside where a ray crosses the border an odd number of times
    far = np.sqrt(best)
    sign = np.where(odd, -1.0, 1.0)
    on_edge = far <= 1e-12
    # the gradient points away from the foot; on the edge itself it is the normal
    scale = sign / np.where(on_edge, 1, far)
    slope_r, slope_z = np.where(on_edge, normal_r, scale * offset_r), np.where(on_edge, normal_z, scale * offset_z)
    return sign * far, np.stack([slope_r, slope_z], axis=1)


def sense(profile: np.ndarray) -> float:
    """1 for a polygon that runs from the first axis to the second, else -1.

    Args:
        profile: Corners ``(E, 2)``.
    """
    ends = np.roll(profile, -1, axis=0)
    return 1.0 if (profile[:, 0] * ends[:, 1] - profile[:, 1] * ends[:, 0]).sum() > 0 else -1.0


def ellipsoid_foot(points: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Closest point of an ellipsoid, ``(P, 3)``.

    With y the point and e the half axes, the foot is ``e^2 y / (t + e^2)`` for the largest root t of
    ``F(t) = sum (e y / (t + e^2))^2 - 1``. F falls and is convex beyond its largest pole, so Newton's method climbs to
    the root from a lower bound of it without overshooting. A point in the plane of the two longer axes that has no
    root beyond the pole takes the pole, and its third coordinate from the surface.

    Args:
        points: Points ``(P, 3)`` of the first octant.
        axes: Half axes ``(3,)``.

    Source: D. Eberly, Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid, section 2 (with Newton's
    method in place of bisection).
    """
    squares, scaled = axes**2, points * axes  # (3,), (P, 3)
    shortest = int(np.argmin(axes))
    apart = squares - squares[shortest]  # t + e^2 = u + apart, with u = t + e_min^2 free of cancellation
    root = np.maximum((scaled - apart).max(axis=1), 0)  # (P,), u where one of the terms alone is 1, so F >= 0
    todo = np.arange(len(points))
    for _ in range(NEWTON_STEPS):
        below = np.maximum(root[todo, None] + apart, TINY**2)
        terms = (scaled[todo] / below) ** 2  # (P, 3)
        step = (terms.sum(axis=1) - 1) / np.maximum(2 * (terms / below).sum(axis=1), TINY)
        root[todo] += np.maximum(step, 0)
        todo = todo[step > 1e-15 * root[todo]]
        if len(todo) == 0:
            break
    foot = squares * points / np.maximum(root[:, None] + apart, TINY**2)
    on_pole = points[:, shortest] <= TINY**2
    if on_pole.any():
        rest = 1 - (np.delete(foot[on_pole] / axes, shortest, axis=1) ** 2).sum(axis=1)
        foot[on_pole, shortest] = axes[shortest] * np.sqrt(np.maximum(rest, 0))
    return foot
