"""Meshes of implicit functions: marching cubes near the surface only, vertices moved onto the surface.

Letters: V vertices, F faces, P points.
"""

import numpy as np

from wsrl.signals.solids.primitives import lengths
from wsrl.signals.solids.union import Union

BLOCK = 8
MARGIN_CELLS = 2
SPECK = 50  # vertices; the smallest body of any family has thousands


def mesh_union(shape: Union, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(V, 3)`` on the surface and faces ``(F, 3)``, counter-clockwise seen from outside.

    The function is never steeper than 1, so a block of cells whose middle is farther from zero than its corners are
    from the middle has no surface and is not evaluated.

    Args:
        shape: The shape, not empty.
        resolution: Number of cells along the longest side of the shape.
    """
    from skimage.measure import marching_cubes

    low, high = tight_bounds(shape)
    cell = float((high - low).max()) / resolution
    num_blocks = np.ceil(((high - low) / cell + 2 * MARGIN_CELLS) / BLOCK).astype(int)
    origin = (low + high - num_blocks * BLOCK * cell) / 2
    volume = blockwise(shape, origin, cell, num_blocks)
    vertices, faces, _, _ = marching_cubes(volume, level=0.0, allow_degenerate=False)
    vertices, faces = without_specks(vertices.astype(np.float64), faces.astype(np.int64))
    return onto_surface(shape, vertices * cell + origin), faces


def without_specks(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh without the specks along sharp edges, where a corner of the grid is inside and its neighbours are not.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Faces ``(F, 3)``.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(2 * len(faces)), (faces[:, :2].ravel(), faces[:, 1:].ravel())), [len(vertices)] * 2)
    _, part = connected_components(links, directed=False)
    keep = np.bincount(part)[part] >= SPECK
    renumbered = np.cumsum(keep) - 1
    return vertices[keep], renumbered[faces[keep[faces[:, 0]]]]


def tight_bounds(shape: Union) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner of the shape, found on a coarse grid and widened to be safe.

    Args:
        shape: The shape.
    """
    low, high = shape.bounds()
    num = 24
    cell = (high - low) / num
    index = np.stack(np.meshgrid(*[np.arange(num)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centers = low + (index + 0.5) * cell
    near = shape.value(centers)[0] <= np.linalg.norm(cell) / 2
    return centers[near].min(axis=0) - cell / 2, centers[near].max(axis=0) + cell / 2


def blockwise(shape: Union, origin: np.ndarray, cell: float, num_blocks: np.ndarray) -> np.ndarray:
    """Values at all corners of a grid of cells; those of blocks without surface are only right in sign.

    Args:
        shape: The shape.
        origin: Lowest corner of the grid, ``(3,)``.
        cell: Side of a cell.
        num_blocks: Number of blocks of cells along each axis, ``(3,)``.
    """
    blocks = np.stack(np.meshgrid(*map(np.arange, num_blocks), indexing="ij"), axis=-1).reshape(-1, 3)
    middle = shape.value(origin + (blocks + 0.5) * BLOCK * cell)[0]
    coarse = middle.reshape(num_blocks).repeat(BLOCK, 0).repeat(BLOCK, 1).repeat(BLOCK, 2)
    volume = np.pad(coarse, ((0, 1),) * 3, mode="edge")
    near = blocks[np.abs(middle) <= np.sqrt(3) / 2 * BLOCK * cell * (1 + 1e-9)]
    offsets = np.stack(np.meshgrid(*[np.arange(BLOCK + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corners = (near[:, None] * BLOCK + offsets).reshape(-1, 3)
    flat = np.unique(np.ravel_multi_index(corners.T, volume.shape))
    where = np.unravel_index(flat, volume.shape)
    values = shape.value(origin + np.stack(where, axis=1) * cell)[0]
    volume[where] = np.where(values == 0, cell * 1e-9, values)  # marching cubes leaves holes at the level itself
    return volume


def onto_surface(shape: Union, points: np.ndarray, steps: int = 8) -> np.ndarray:
    """Points moved along the gradient onto the surface, ``(P, 3)``.

    Args:
        shape: The shape.
        points: Points ``(P, 3)`` near the surface.
        steps: Largest number of Newton steps.
    """
    points = points.copy()
    todo = np.arange(len(points))
    for _ in range(steps):
        value, gradient = shape.value(points[todo])
        points[todo] -= (value / np.maximum(lengths(gradient) ** 2, 0.05))[:, None] * gradient
        todo = todo[np.abs(value) > 1e-13]
        if len(todo) == 0:
            break
    return points
