"""Sharp and smooth unions of primitives as one implicit function that is zero on the surface and negative inside.

The function is not the distance: it is right outside a sharp union and a lower bound of the distance elsewhere, since
its gradient is a mean of the primitives' gradients and so never longer than 1. ``nearest_point.py`` finds the distance.

Letters: P points, B bodies.
"""

from dataclasses import dataclass

import numpy as np

from wsrl.signals.solids.primitives import Primitive, lengths

BLOCK_POINTS = 1 << 13
"""Points evaluated together: with more, memory is slower than the arithmetic, with fewer the calls are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Union:
    """Primitives joined in order.

    Attributes:
        bodies: The primitives.
        blend: Width of the smooth union, in the units of the bodies; 0 for a sharp union.
    """

    bodies: tuple[Primitive, ...]
    blend: float = 0.0

    def parts(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance ``(B, P)`` and gradient ``(B, P, 3)`` of each body at points ``(P, 3)``, float64."""
        distances = np.empty((len(self.bodies), len(points)))
        gradients = np.empty((len(self.bodies), len(points), 3))
        for block in blocks(len(points)):
            for index, body in enumerate(self.bodies):
                distances[index, block], gradients[index, block] = body.distance(points[block])
        return distances, gradients

    def value(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The implicit function ``(P,)`` and its gradient ``(P, 3)`` at points ``(P, 3)``, float64."""
        values, gradients = np.empty(len(points)), np.empty((len(points), 3))
        for block in blocks(len(points)):
            values[block], gradients[block] = self.block_value(points[block])
        return values, gradients

    def block_value(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`value` at so few points that what is between them stays in the processor's cache."""
        value, gradient = self.bodies[0].distance(points)
        for body in self.bodies[1:]:
            apart = lengths(points - body.center) - body.reach()
            near = np.flatnonzero(apart < value + self.blend)  # a body farther away changes nothing
            value[near], gradient[near] = self.pair(value[near], gradient[near], *body.distance(points[near]))
        return value, gradient

    def join(self, distances: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Join the bodies' distances ``(B, P)`` and gradients ``(B, P, 3)``, one body after another."""
        value, gradient = distances[0], gradients[0]
        for other, slope in zip(distances[1:], gradients[1:], strict=True):
            value, gradient = self.pair(value, gradient, other, slope)
        return value, gradient

    def pair(
        self, value: np.ndarray, gradient: np.ndarray, other: np.ndarray, slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The quadratic smooth minimum of two functions ``(P,)``, and its gradient ``(P, 3)`` from theirs.

        ``smin(a, b) = min(a, b) - h^2 k / 4`` with ``h = max(k - |a - b|, 0) / k`` and k the width of the blend.

        Source: I. Quilez, Smooth minimum, the quadratic polynomial.
        """
        first = value <= other
        if self.blend == 0:
            return np.minimum(value, other), np.where(first[:, None], gradient, slope)
        blended = np.maximum(self.blend - np.abs(value - other), 0) / self.blend  # h
        share = np.where(first, 1 - blended / 2, blended / 2)[:, None]
        return np.minimum(value, other) - blended**2 * (self.blend / 4), share * gradient + (1 - share) * slope

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner ``(3,)`` of a box that holds the shape."""
        reach = np.array([[body.reach()] for body in self.bodies]) + self.blend
        centers = np.stack([body.center for body in self.bodies])
        return (centers - reach).min(axis=0), (centers + reach).max(axis=0)


def blocks(num: int) -> list[slice]:
    """Slices of at most :data:`BLOCK_POINTS` points that together are all."""
    return [slice(start, start + BLOCK_POINTS) for start in range(0, num, BLOCK_POINTS)]
