"""Marching cubes whose triangles depend on signs alone, so that neighbouring cells always agree.

Where a face of a cell has its inside corners on a diagonal, they are always separated. scikit-image decides by products
of values instead, and leaves holes where values equal the level and edges of four faces where products tie. No triangle
has a diagonal in a face of its cell, which the neighbour could have too: every edge belongs to exactly two triangles.

Letters: X, Y, Z nodes of a grid; K triangles; V vertices.
"""

import itertools
from functools import lru_cache

import numpy as np

CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
"""Offsets of the corners of a cell, ``(8, 3)``; a corner's place is its bit in the cell's code."""
EDGES = [(corner, axis) for corner in range(8) for axis in range(3) if not CORNERS[corner][axis]]
"""Lower corner and axis of the twelve edges of a cell."""
CLOSEST = 1e-3
"""A vertex stays so far from the ends of its edge, in cells: vertices of different edges are never the same point."""


def marching_cubes(
    values: np.ndarray, cells: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices and triangles between the nodes that are below zero and the others.

    Args:
        values: Finite values ``(X, Y, Z)`` at the nodes; zero is outside.
        cells: What :func:`crossed_cells` found, where that is known.

    Returns:
        - Edges ``(V,)`` that have a vertex, sorted: three times the flat index of the lower node, plus the axis. Those
          of the last plane along X are left out: they are the first plane of what lies behind.
        - Where along each edge its vertex lies, ``(V,)``, between 0 and 1.
        - Triangles ``(K, 3)`` as edges, cell by cell, counter-clockwise seen from outside.
    """
    # the edges whose ends lie on different sides
    inside = values < 0
    edges = np.flatnonzero(_crossings(inside))
    nodes, axes = np.divmod(edges, 3)
    steps = np.array([values.shape[1] * values.shape[2], values.shape[2], 1])
    # where the line between the values of their ends is zero
    flat = values.reshape(-1)
    low, high = flat[nodes].astype(np.float64), flat[nodes + steps[axes]].astype(np.float64)
    return edges, (low / (low - high)).clip(CLOSEST, 1 - CLOSEST), _triangles(*(cells or crossed_cells(inside)), steps)


def cell_codes(inside: np.ndarray) -> np.ndarray:
    """One byte per cell, ``(X - 1, Y - 1, Z - 1)``: which corners are inside."""
    codes = np.zeros([side - 1 for side in inside.shape], dtype=np.uint8)
    for bit, corner in enumerate(CORNERS):
        part = inside[tuple(slice(c, c + size) for c, size in zip(corner, codes.shape))]
        codes |= part.view(np.uint8) << np.uint8(bit)
    return codes


def crossed_cells(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of the lowest node, and code, of every cell that the surface crosses."""
    codes = cell_codes(inside)
    cells = np.flatnonzero((codes != 0) & (codes != 255))
    return np.ravel_multi_index(np.unravel_index(cells, codes.shape), inside.shape), codes.reshape(-1)[cells]


def _crossings(inside: np.ndarray) -> np.ndarray:
    """Whether an edge crosses the surface, ``(X - 1, Y, Z, 3)`` by lower node and axis."""
    crossed = np.zeros((inside.shape[0] - 1, *inside.shape[1:], 3), dtype=bool)
    crossed[..., 0] = inside[:-1] != inside[1:]
    crossed[:, :-1, :, 1] = inside[:-1, :-1] != inside[:-1, 1:]
    crossed[:, :, :-1, 2] = inside[:-1, :, :-1] != inside[:-1, :, 1:]
    return crossed


def _triangles(nodes: np.ndarray, codes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Triangles ``(K, 3)`` as edges of the grid."""
    table, counts = triangle_table()
    # one row for each triangle: its cell, and which of the cell's triangles it is
    number = counts[codes]
    cell = np.repeat(np.arange(len(codes)), number)
    within_cell = np.arange(len(cell)) - np.repeat(np.cumsum(number) - number, number)
    edges = table[codes[cell], within_cell]  # (K, 3) of the cell
    offsets = np.array([3 * (CORNERS[corner] @ steps) + axis for corner, axis in EDGES])
    return 3 * nodes[cell, None] + offsets[edges]


@lru_cache(maxsize=1)
def triangle_table() -> tuple[np.ndarray, np.ndarray]:
    """Triangles ``(256, most, 3)`` of every code as edges of the cell, and how many each code has, ``(256,)``."""
    rows = [[t for loop in _loops(code) for t in _triangulated(loop)] for code in range(256)]
    table = np.zeros((256, max(map(len, rows)), 3), dtype=np.int64)
    for code, row in enumerate(rows):
        table[code, : len(row)] = np.reshape(row, (-1, 3))
    return table, np.array([len(row) for row in rows])


def _faces() -> list[list[int]]:
    """The four corners of each face of a cell, counter-clockwise seen from outside."""
    faces = []
    for axis, side in itertools.product(range(3), (0, 1)):
        one, two = np.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
        around = [side * np.eye(3, dtype=int)[axis] + a * one + b * two for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        corners = [int(point @ (4, 2, 1)) for point in around]
        faces.append(corners if side else corners[::-1])
    return faces


def _edge(first: int, second: int) -> int:
    """The edge between two corners."""
    axis = int(np.flatnonzero(CORNERS[first] != CORNERS[second])[0])
    return EDGES.index((min(first, second), axis))


def _loops(code: int) -> list[list[int]]:
    """Closed loops of edges in which the surface meets the faces of a cell."""
    # on each face from the edge by which the line enters what is inside to that by which it leaves
    following: dict[int, int] = {}
    for face in _faces():
        inside = [bool(code >> corner & 1) for corner in face]
        for i in range(4):
            if inside[i] or not inside[(i + 1) % 4]:
                continue
            end = next(j for j in range(i + 1, i + 4) if not inside[(j + 1) % 4])  # the last of the corners inside
            entered = _edge(face[i], face[(i + 1) % 4])
            following[entered] = _edge(face[end % 4], face[(end + 1) % 4])
    # from edge to edge until a loop is closed
    loops = []
    while following:
        edge, loop = next(iter(following)), []
        while edge in following:
            loop.append(edge)
            edge = following.pop(edge)
        loops.append(loop)
    return loops


def _triangulated(loop: list[int]) -> list[tuple[int, int, int]] | None:
    """Triangles of a loop none of whose diagonals lies in a face of the cell; None where there are none."""
    if len(loop) < 3:
        return []
    # the triangle over the closing edge with its tip at each corner in turn, and what is left on both sides of it
    for i in range(1, len(loop) - 1):
        cuts = [(loop[0], loop[i])] * (i > 1) + [(loop[i], loop[-1])] * (i < len(loop) - 2)
        if any(_in_one_face(*cut) for cut in cuts):
            continue
        parts = _triangulated(loop[: i + 1]), _triangulated(loop[i:])
        if None not in parts:
            return [*parts[0], (loop[0], loop[i], loop[-1]), *parts[1]]
    return None


def _in_one_face(first: int, second: int) -> bool:
    edges = [{_edge(face[i], face[(i + 1) % 4]) for i in range(4)} for face in _faces()]
    return any({first, second} <= face for face in edges)
