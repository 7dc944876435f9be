"""Areas and normals of triangles, and random points on them.

Letters: T triangles, R random ones.
"""

import numpy as np


def area_vectors(triangles: np.ndarray) -> np.ndarray:
    """Normal of each triangle ``(T, 3, 3)``, twice its area long."""
    return np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])


def double_areas(triangles: np.ndarray) -> np.ndarray:
    """Twice the area of each triangle ``(T, 3, 3)``."""
    return np.linalg.norm(area_vectors(triangles), axis=1)


def unit_normals(triangles: np.ndarray) -> np.ndarray:
    """Unit normal of each triangle ``(T, 3, 3)``; shorter where its area rounds to none."""
    normals = area_vectors(triangles)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)


def longest_edge(triangles: np.ndarray) -> np.ndarray:
    """Length ``(T,)`` of the longest edge of each triangle ``(T, 3, 3)``."""
    return np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1, initial=0)


def sample_triangles(triangles: np.ndarray, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points evenly over triangles, by area.

    Args:
        triangles: Corners ``(F, 3, 3)``.
        num: How many points.
        generator: Source of the randomness.

    Returns:
        Points ``(num, 3)`` and the unit normals ``(num, 3)`` of their triangles.
    """
    normals = area_vectors(triangles)
    lengths = np.linalg.norm(normals, axis=1)
    # a triangle with a chance in proportion to its area
    cumulated = np.cumsum(lengths)
    rows = np.searchsorted(cumulated, generator.random(num) * cumulated[-1], side="right").clip(0, len(triangles) - 1)
    u, v = generator.random((2, num, 1))
    # a point of the parallelogram, folded into the triangle
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    a, b, c = np.moveaxis(triangles[rows], 1, 0)
    return a + u * (b - a) + v * (c - a), normals[rows] / lengths[rows, None]


def random_points(triangles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One point ``(R, 3)`` on each of the triangles ``(R, 3, 3)``, evenly over it."""
    return np.einsum("rc,rci->ri", generator.dirichlet((1, 1, 1), len(triangles)), triangles)


def draw_from_groups(
    areas: np.ndarray, group: np.ndarray, numbers: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Indices of triangles ``(R,)``, by area within each group of them, group by group.

    Args:
        areas: Area of each triangle ``(T,)``.
        group: Group of each.
        numbers: How many of each group; none of a group without area.
        generator: Source of the randomness.
    """
    # triangles laid end to end by area, group by group; a random point in the stretch of a group is a triangle
    order = np.argsort(group, kind="stable")
    total = np.bincount(group, weights=areas, minlength=len(numbers))
    start = np.cumsum(total) - total
    drawn = np.repeat(start, numbers) + generator.random(int(numbers.sum())) * np.repeat(total, numbers)
    nearest = np.searchsorted(np.cumsum(areas[order]), drawn, side="right")
    # rounding must not leave the group
    first = np.searchsorted(group[order], np.arange(len(numbers) + 1))
    owner = np.repeat(np.arange(len(numbers)), numbers)
    return order[nearest.clip(first[owner], first[owner + 1] - 1)]
