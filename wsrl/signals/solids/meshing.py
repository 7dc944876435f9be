"""Meshes of implicit functions: marching cubes near the surface only, vertices moved onto the surface.

Letters: V vertices, F faces, P points.
"""

import numpy as np

from wsrl.signals.solids.primitives import lengths
from wsrl.signals.solids.union import Union

BLOCK_SIDES = (8, 4, 2)  # cells
MARGIN_CELLS = 2
CONVERGED = 1e-13  # a value at which Newton's method ends
SPECK = 50  # vertices; the smallest body of any family has thousands


def mesh_union(shape: Union, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(V, 3)`` on the surface and faces ``(F, 3)``, counter-clockwise seen from outside.

    Args:
        shape: The shape, not empty.
        resolution: Number of cells along the longest side of the shape.
    """
    from skimage.measure import marching_cubes

    low, high = tight_bounds(shape)
    cell = float((high - low).max()) / resolution
    num_cells = np.ceil(((high - low) / cell + 2 * MARGIN_CELLS) / BLOCK_SIDES[0]).astype(int) * BLOCK_SIDES[0]
    origin = (low + high - num_cells * cell) / 2
    volume = blockwise(shape, origin, cell, num_cells)
    vertices, faces, _, _ = marching_cubes(volume, level=0.0, allow_degenerate=False)
    vertices, faces = without_specks(vertices.astype(np.float64), faces.astype(np.int64))
    return onto_surface(shape, vertices * cell + origin)[0], faces


def without_specks(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh without the specks along sharp edges, where one corner of the grid is inside, not its neighbours."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(2 * len(faces)), (faces[:, :2].ravel(), faces[:, 1:].ravel())), [len(vertices)] * 2)
    _, part = connected_components(links, directed=False)
    keep = np.bincount(part)[part] >= SPECK
    renumbered = np.cumsum(keep) - 1
    return vertices[keep], renumbered[faces[keep[faces[:, 0]]]]


def tight_bounds(shape: Union) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner of the shape, found on a coarse grid and widened to be safe."""
    low, high = shape.bounds()
    num = 24
    cell = (high - low) / num
    centers = low + (grid(num, num, num) + 0.5) * cell
    near = shape.value(centers)[0] <= np.linalg.norm(cell) / 2
    return centers[near].min(axis=0) - cell / 2, centers[near].max(axis=0) + cell / 2


def blockwise(shape: Union, origin: np.ndarray, cell: float, num_cells: np.ndarray) -> np.ndarray:
    """Values at all corners of a grid of cells; those of blocks without surface are only right in sign.

    The function is never steeper than 1, so a block of cells whose middle is farther from zero than its corners are
    from the middle has no surface. The others are divided into eight, again and again.

    Args:
        shape: The shape.
        origin: Lowest corner of the grid, ``(3,)``.
        cell: Side of a cell.
        num_cells: Number of cells along each axis, ``(3,)``, a multiple of the largest block's.
    """
    volume = np.empty(num_cells + 1)
    lowest = grid(*num_cells // BLOCK_SIDES[0]) * BLOCK_SIDES[0]  # (N, 3), the lowest corner of each block
    for side in BLOCK_SIDES:
        middle = shape.value(origin + (lowest + side / 2) * cell)[0]
        near = np.abs(middle) <= np.sqrt(3) / 2 * side * cell * (1 + 1e-9)
        fill(volume, lowest[~near], side + 1, middle[~near, None])
        lowest = lowest[near]
        if side != BLOCK_SIDES[-1]:
            lowest = (lowest[:, None] + grid(2, 2, 2) * (side // 2)).reshape(-1, 3)
    # the corners of the smallest blocks, each once
    wanted = np.zeros(volume.shape, bool)
    fill(wanted, lowest, BLOCK_SIDES[-1] + 1, True)
    corners = np.flatnonzero(wanted)
    values = shape.value(origin + np.stack(np.unravel_index(corners, volume.shape), axis=1) * cell)[0]
    # marching cubes leaves holes at the level itself
    volume.ravel()[corners] = np.where(values == 0, cell * 1e-9, values)
    return volume


def grid(*counts: int) -> np.ndarray:
    """All triples ``(N, 3)`` of indices below three counts, the last one running fastest."""
    return np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 3)


def fill(volume: np.ndarray, lowest: np.ndarray, side: int, values: np.ndarray | bool) -> None:
    """Set cubes of a volume.

    Args:
        volume: What is changed.
        lowest: Lowest corner ``(N, 3)`` of each cube.
        side: Entries along each side of a cube.
        values: One for all, or one for each cube, ``(N, 1)``.
    """
    strides = np.array([volume.shape[1] * volume.shape[2], volume.shape[2], 1])
    volume.ravel()[(lowest @ strides)[:, None] + grid(side, side, side) @ strides] = values


def onto_surface(shape: Union, points: np.ndarray, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Points moved along the gradient onto the surface, ``(P, 3)``, and the gradients ``(P, 3)`` before the last move.

    Args:
        shape: The shape.
        points: Points ``(P, 3)`` near the surface.
        steps: Largest number of Newton steps.
    """
    value, gradient = shape.value(points)
    points = points - (value / np.maximum(lengths(gradient) ** 2, 0.05))[:, None] * gradient
    if len(shape.bodies) == 1:  # the function is the distance, so the first step ends on the surface
        return points, gradient
    todo = np.flatnonzero(np.abs(value) > CONVERGED)
    for _ in range(steps - 1):
        if len(todo) == 0:
            break
        value, slope = shape.value(points[todo])
        points[todo] -= (value / np.maximum(lengths(slope) ** 2, 0.05))[:, None] * slope
        gradient[todo] = slope
        todo = todo[np.abs(value) > CONVERGED]
    return points, gradient
