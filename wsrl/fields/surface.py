"""From a field to a mesh: marching cubes on a grid that is evaluated coarse to fine, only where the surface can be.

A block is left out where its corners have one sign and are farther from zero than the field can come by its slope,
which is measured on the coarse grid. A block that was left out and turns out to border on the surface is evaluated
after all: the mesh is always closed, and it is that of the whole grid unless a part of the surface hides inside one
block of a region that looks flat. Fields are negative inside.

Letters: P points, S nodes of a side of the grid, B blocks of a side, V vertices, F faces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from math import log2

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import SignalError
from wsrl.fields.blocks import corners_of, may_cross, paint, painted, slopes_of, spread
from wsrl.fields.cubes import CORNERS, crossed_cells, marching_cubes
from wsrl.options import between, check_values

EVALUATED_AT_ONCE = 1 << 16
NODES_AT_ONCE = 1 << 22
"""Nodes of the grid that are in memory together, in a slab."""
COARSE = 32
"""Blocks of a side, about: few, and still small enough to leave blocks out where distances are clamped at 0.1."""
MAX_RESOLUTION = 2048
FARTHEST = 1e15
CHAMFER = 5e-4
"""How far nodes at the border of the cube are moved inwards, in cells: its sides then have no vertex in common."""


def extract_surface(
    distance: Callable[[Tensor], Tensor], resolution: int = 128, *, level: float = 0.0, dense: bool = False
):
    """Mesh of the surface where a field takes a level.

    The outer nodes of the grid lie on the border of the cube, ``2 / resolution`` apart. A surface that leaves the cube
    is closed at its border. Values equal to the level are outside.

    Args:
        distance: Values ``(P,)`` or ``(P, 1)`` at points ``(P, 3)`` in [-1, 1]^3, float32; negative inside.
        resolution: Cells of a side.
        level: Value of the surface.
        dense: Evaluate every node of the grid.

    Returns:
        A closed ``trimesh.Trimesh`` in [-1, 1]^3 whose normals point to larger values; it has no faces where the field
        is on one side of the level.

    Raises:
        SignalError: A value is not a number.
        UserError: The resolution is out of range.

    Source: Lorensen and Cline, SIGGRAPH 1987, for the cubes.
    """
    import trimesh

    check_values({"resolution": resolution}, resolution=between(2, MAX_RESOLUTION))
    vertices, faces = _Grid(distance, resolution, level, dense).mesh()
    return trimesh.Trimesh(vertices, faces, process=False)


@dataclass(frozen=True)
class _Slab:
    """The surface in some layers of blocks, by edges of the grid, and what is inside on the first and last plane."""

    edges: np.ndarray
    vertices: np.ndarray
    triangles: np.ndarray
    first: np.ndarray
    last: np.ndarray


class _Grid:
    """The nodes of the cube and, around them, outside nodes that close the surface; in blocks of ``stride`` cells.

    Attributes:
        active: Which blocks may contain the surface, ``(B, B, B)``.
        full: Which blocks are evaluated at every node.
        coarse: Values at the corners of the blocks.
        slopes: How steep the field may be in each block.
    """

    def __init__(self, distance: Callable[[Tensor], Tensor], resolution: int, level: float, dense: bool):
        self.distance, self.resolution, self.level, self.dense = distance, resolution, level, dense
        # blocks of ``stride`` cells, as many as hold the cube and a layer of nodes around it
        self.cell = 2.0 / resolution
        self.stride = 1 << max(0, round(log2(resolution / COARSE)))
        num = -(-(resolution + 2) // self.stride)
        self.side = num * self.stride + 1
        axis = torch.linspace(-1, 1, resolution + 1, dtype=torch.float64)
        self.inner = np.arange(self.side).clip(1, resolution + 1)  # the nearest node in the cube
        self.axis = axis[torch.from_numpy(self.inner - 1)].float()
        # slabs of as many layers of blocks as fit into memory, and values on the planes between them
        layers = max(1, NODES_AT_ONCE // (self.stride * self.side**2))
        self.slabs = [(start, min(start + layers, num)) for start in range(0, num, layers)]
        self.shared = {start * self.stride: np.full(self.side**2, np.nan, np.float32) for start, _ in self.slabs[1:]}
        self.full = np.zeros((num, num, num), dtype=bool)
        if not dense:
            # values at all corners of blocks, and by their slopes the blocks that may contain the surface
            corners = np.arange(0, self.side, self.stride)
            nodes = (corners[:, None, None] * self.side + corners[:, None]) * self.side + corners
            self.coarse = self.values(nodes.reshape(-1)).reshape(nodes.shape)
            inside = np.arange(1, num + 1) * self.stride <= resolution + 1
            inside[0] = False  # a block with nodes around the cube would count as steep where the surface is closed
            inside = inside[:, None, None] & inside[:, None] & inside
            size = self.stride * self.cell
            self.slopes = spread(slopes_of(corners_of(self.coarse)) / size, inside)
            self.active = may_cross(corners_of(self.coarse), self.slopes, size)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices ``(V, 3)`` and faces ``(F, 3)``."""
        parts = {slab: self._march(*slab) for slab in self.slabs}
        while redo := self._disagreeing(parts):
            parts |= {slab: self._march(*slab) for slab in redo}
        edges, vertices = (np.concatenate([getattr(parts[s], k) for s in self.slabs]) for k in ("edges", "vertices"))
        faces = [np.searchsorted(edges, parts[slab].triangles) for slab in self.slabs]
        return vertices, np.concatenate(faces)

    def values(self, nodes: np.ndarray) -> np.ndarray:
        """Values relative to the level at sorted nodes ``(P,)``; around the cube the size of the nearest one in it.

        What two slabs share is evaluated once: a second time it could differ in the last bit.
        """
        values = np.full(len(nodes), np.nan, dtype=np.float32)
        planes, offsets = np.divmod(nodes, self.side**2)
        between = {plane: np.flatnonzero(planes == plane) for plane in self.shared if planes[0] <= plane <= planes[-1]}
        for plane, where in between.items():
            values[where] = self.shared[plane][offsets[where]]
        missing = np.isnan(values)
        values[missing] = self._evaluated(nodes[missing])
        for plane, where in between.items():
            self.shared[plane][offsets[where]] = values[where]
        return values

    def _evaluated(self, nodes: np.ndarray) -> np.ndarray:
        evaluated = np.empty(len(nodes), dtype=np.float32)
        for start in range(0, len(nodes), EVALUATED_AT_ONCE):
            index = np.stack(np.unravel_index(nodes[start : start + EVALUATED_AT_ONCE], [self.side] * 3), axis=1)
            coords = self.axis[torch.from_numpy(index)]
            # values relative to the level at one run of nodes, none of them nan
            with torch.no_grad():
                values = self.distance(coords).reshape(-1).float().cpu().numpy() - np.float32(self.level)
            if np.isnan(values).any():
                at = ", ".join(f"{c:.3g}" for c in coords[int(np.isnan(values).argmax())].tolist())
                raise SignalError(f"the field is not a number at ({at})", allowed="numbers", do="leave this field out")
            values = values.clip(-FARTHEST, FARTHEST)
            # nodes around the cube are outside, as far as the nearest one in it
            around = (index != self.inner[index]).any(axis=1)
            evaluated[start : start + len(values)] = np.where(around, np.abs(values), values)
        return evaluated

    def _march(self, start: int, stop: int) -> _Slab:
        """The surface in the layers of blocks from ``start`` up to ``stop``."""
        if not (self.dense or (self.active | self.full)[start:stop].any()):
            nothing = np.zeros(0, dtype=np.int64)
            first, last = (painted(self.coarse[[end]], self.stride)[0] < 0 for end in (start, stop))
            return _Slab(nothing, np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), first, last)
        values, known = self._all(start, stop) if self.dense else self._refined(start, stop)
        # blocks that were left out and border on the surface are evaluated after all
        cells = crossed_cells(values < 0)
        while len(blind := self._blind(cells[0], known)):
            self._fill(blind + np.array([start, 0, 0]))
            values, known = self._refined(start, stop)
            cells = crossed_cells(values < 0)
        edges, along, triangles = marching_cubes(values, cells)
        first = start * self.stride * self.side**2 * 3
        return _Slab(
            edges + first, self._positions(edges + first, along), triangles + first, values[0] < 0, values[-1] < 0
        )

    def _all(self, start: int, stop: int) -> tuple[np.ndarray, None]:
        """Values at all nodes of some layers."""
        planes = np.arange(start * self.stride, stop * self.stride + 1)
        inside = np.arange(self.side) == self.inner
        values = np.ones((len(planes), self.side, self.side), dtype=np.float32)
        is_inner = inside[planes][:, None, None] & inside[:, None] & inside
        values[is_inner] = self.values(np.flatnonzero(is_inner) + planes[0] * self.side**2)
        return values, None

    def _refined(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Values at the nodes of some layers, and where they are the field's; elsewhere only the sign is."""
        stride, first = self.stride, start * self.stride * self.side**2
        values = painted(self.coarse[start : stop + 1], stride)
        known = np.zeros(values.shape, dtype=bool)
        known[::stride, ::stride, ::stride] = True
        flat, offsets = values.reshape(-1), (CORNERS @ [self.side**2, self.side, 1]).astype(np.int32)
        # the blocks that may contain the surface, by their lowest node
        indices = np.nonzero((self.active | self.full)[start:stop])
        slopes, full = (array[start:stop][indices] for array in (self.slopes, self.full))
        blocks = np.ravel_multi_index([index * stride for index in indices], values.shape).astype(np.int32)
        while stride > 1 and len(blocks):
            stride //= 2
            blocks = (blocks[:, None] + stride * offsets).reshape(-1)  # the eight halves of each, by their lowest nodes
            # the corners of the halves that are not known yet are evaluated
            wanted = np.zeros(values.size, dtype=bool)
            for offset in stride * offsets:
                wanted[blocks + offset] = True
            nodes = np.flatnonzero(wanted & ~known.reshape(-1))
            known.reshape(-1)[nodes] = True
            paint(values, nodes, self.values(nodes + first), stride)
            if stride == 1:
                break
            # of the halves those go on that may cross by the steeper of their own slope and their block's
            corners = np.stack([flat[blocks + offset] for offset in stride * offsets]).reshape(2, 2, 2, -1)
            slopes = np.maximum(slopes.repeat(8), slopes_of(corners) / (stride * self.cell))
            full = full.repeat(8)
            keep = full | may_cross(corners, slopes, stride * self.cell)
            blocks, slopes, full = blocks[keep], slopes[keep], full[keep]
        return values, known

    def _blind(self, cells: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """Blocks ``(n, 3)`` of the slab with crossed cells that have a corner whose value is not the field's."""
        if known is None:
            return np.zeros((0, 3), dtype=int)
        offsets = CORNERS @ [self.side**2, self.side, 1]
        unknown = ~known.reshape(-1)[cells[:, None] + offsets].all(axis=1)
        return np.stack(np.unravel_index(cells[unknown], known.shape), axis=1) // self.stride

    def _fill(self, blocks: np.ndarray) -> None:
        self.full[tuple(blocks[((blocks >= 0) & (blocks < len(self.full))).all(axis=1)].T)] = True

    def _disagreeing(self, parts: dict[tuple[int, int], _Slab]) -> list[tuple[int, int]]:
        """Slabs that have to be marched again, since a neighbour found the surface on the plane between them."""
        redo = set()
        for one, two in pairwise(self.slabs):
            differing = np.argwhere(parts[one].last != parts[two].first)
            if len(differing):
                redo |= {one, two}
                for x, y, z in product((two[0] - 1, two[0]), (-1, 0), (-1, 0)):  # the blocks around each place
                    around = (differing + np.array([y, z])) // self.stride
                    self._fill(np.insert(around, 0, x, axis=1))
        return sorted(redo)

    def _positions(self, edges: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Vertices ``(V, 3)`` on edges of the grid."""
        nodes, axes = np.divmod(edges, 3)
        index = np.stack(np.unravel_index(nodes, [self.side] * 3), axis=1)
        # coordinates of the nodes, at the border of the cube moved inwards a little
        axis = np.linspace(-1.0, 1.0, self.resolution + 1)
        axis[[0, -1]] *= 1 - CHAMFER * self.cell
        axis = np.concatenate([[-1.0], axis, np.ones(self.side - len(axis) - 1)])
        # along the edge from its lower node; what lies outside of the cube is put on its border
        rows, low = np.arange(len(index)), index[np.arange(len(index)), axes]
        along = np.where(low == 0, 0.0, np.where(low == self.resolution + 1, 1.0, along))
        points = axis[index]
        points[rows, axes] = axis[low] * (1 - along) + axis[low + 1] * along
        return points
