"""Faces of any number of corners, and the triangles they become.

A face is divided the same way from whichever corner and in whichever direction it is given, so that one that is given
both ways gives the same triangles both ways.

Letters: V vertices, P polygons, N corners of all polygons, M polygons of one size, n corners of each, F triangles.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

FLAT = 1e-9
"""Of a face's area: a triangle below it has no area but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """What a mesh file holds.

    Attributes:
        vertices: Vertices ``(V, 3)`` float64 in the file's units.
        corners: Index of the vertex of each corner ``(N,)``, one polygon after the other.
        sizes: Number of corners of each polygon ``(P,)``.
        others: How many things the file holds that are no faces, by name, for messages.
    """

    vertices: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_triangles(self) -> int:
        """How many triangles they become, one for what is none."""
        return int(np.maximum(self.sizes - 2, 1).sum())


def triangulate(polygons: Polygons) -> np.ndarray:
    """Divide polygons into triangles ``(F, 3)``, in the order of the polygons.

    A corner out of range makes all triangles of its polygon ``(-1, -1, -1)``. Fewer than three corners give a triangle
    without area. The border of a polygon stays what it was: corners on a straight side are not lost.

    Args:
        polygons: Faces of any size, convex or not, in any plane, also slightly out of it.
    """
    vertices, corners, sizes = polygons.vertices, polygons.corners, polygons.sizes
    starts = np.cumsum(sizes) - sizes
    rank = ranks(vertices) if (sizes > 3).any() else None
    parts, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    # polygons of one size at once
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        if size == 0:
            continue
        index = corners[starts[members][:, None] + np.arange(size)]  # (M, n)
        if size <= 3:
            faces, owner = index[:, [0, min(1, size - 1), size - 1]], np.arange(len(members))
        else:
            faces, owner = divide(vertices, index, rank)
        parts.append(faces)
        owners.append(members[owner])
    # triangles in the order of their polygons again
    owner = np.concatenate(owners)
    return np.concatenate(parts)[np.argsort(owner, kind="stable")]


def ranks(vertices: np.ndarray) -> np.ndarray:
    """Rank ``(V,)`` of each vertex ``(V, 3)`` in the order of their coordinates, the same for equal vertices."""
    order = np.lexsort(vertices.T)
    new = np.ones(len(order), np.int64)
    new[1:] = (vertices[order[1:]] != vertices[order[:-1]]).any(axis=1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new)
    return rank


def divide(vertices: np.ndarray, index: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of polygons of one size.

    Args:
        vertices: Vertices ``(V, 3)``.
        index: Vertices of the corners ``(M, n)``, n from 4.
        rank: Place of each vertex in the order of their coordinates.

    Returns:
        Triangles ``(F, 3)`` and the polygon of each ``(F,)``.
    """
    num, size = index.shape
    # corners out of range are replaced here and the triangles of their polygons given up below
    known = ((index >= 0) & (index < len(vertices))).all(axis=1)
    safe = np.where(known[:, None], index, 0) if len(vertices) else np.zeros_like(index)
    # start each polygon at its smallest corner, towards the smaller of that one's neighbours
    first = rank[safe].argmin(axis=1) if len(vertices) else np.zeros(num, np.int64)
    ordered = np.take_along_axis(safe, (first[:, None] + np.arange(size)) % size, axis=1)
    turned = rank[ordered[:, 1]] > rank[ordered[:, -1]] if len(vertices) else np.zeros(num, bool)
    ordered[turned, 1:] = ordered[turned, :0:-1]
    # a fan where it divides the polygon, else ears
    fan = np.stack([np.zeros(size - 2, int), np.arange(1, size - 1), np.arange(2, size)], axis=1)
    faces = ordered[:, fan]  # (M, n - 2, 3)
    points = vertices[ordered] if len(vertices) else np.zeros((num, size, 3))
    normal = newell(points)
    by_ears = np.flatnonzero(known & ~is_fan(points, normal) & (np.abs(normal).max(axis=1) > 0))
    faces[~known] = -1
    plain = np.setdiff1d(np.arange(num), by_ears)
    # those that are no fan one by one, as they are rare
    parts, owners = [faces[plain].reshape(-1, 3)], [np.repeat(plain, size - 2)]
    for polygon in by_ears:
        cut = ordered[polygon][ears(points[polygon], normal[polygon], rank[ordered[polygon]])]
        parts.append(cut)
        owners.append(np.full(len(cut), polygon))
    result, owner = np.concatenate(parts), np.concatenate(owners)
    # back to the sense that the polygon was given in
    result[turned[owner]] = result[turned[owner]][:, ::-1]
    return result, owner


def newell(points: np.ndarray) -> np.ndarray:
    """Normal ``(M, 3)`` of polygons ``(M, n, 3)``, twice their area long, also where they are not quite flat."""
    # the sum of the cross products of neighbouring corners, seen from the first for precision
    from_first = points - points[:, :1]
    return np.cross(from_first[:, 1:-1], from_first[:, 2:]).sum(axis=1)


def is_fan(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Whether triangles around the first corner divide each polygon ``(M, n, 3)``: it sees all others in order."""
    spokes = points[:, 1:] - points[:, :1]  # (M, n - 1, 3)
    area = np.einsum("mi,mi->m", normal, normal)[:, None]
    turns = [
        np.cross(spokes[:, :-1], spokes[:, 1:]),  # each triangle has an area
        np.cross(spokes[:, :1], spokes[:, 1:]),  # all lie in one half of the plane, so they cannot go round twice
        np.cross(spokes[:, :-1], spokes[:, -1:]),
    ]
    return np.all([(np.einsum("mki,mi->mk", turn, normal) > FLAT * area).all(axis=1) for turn in turns], axis=0)


def ears(points: np.ndarray, normal: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Triangles of one polygon ``(F, 3)`` as places in it, by cutting off its ears.

    Args:
        points: Corners ``(n, 3)``.
        normal: Its normal, not zero.
        rank: Equal for equal corners ``(n,)``.
    """
    import mapbox_earcut

    # repeated corners leave no side between them
    kept = np.flatnonzero(rank != np.roll(rank, 1))
    if len(kept) < 3:
        return np.zeros((0, 3), np.int64)
    # look along the axis closest to the normal, from the side on which the polygon runs counter-clockwise
    axis = int(np.abs(normal).argmax())
    plane = [(axis + 1) % 3, (axis + 2) % 3][:: 1 if normal[axis] > 0 else -1]
    flat = np.ascontiguousarray((points[kept] - points[kept[0]])[:, plane])
    cut = mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], np.uint32)).reshape(-1, 3).astype(np.int64)
    if signed_areas(flat, cut).sum() < 0:
        cut = cut[:, ::-1]
    if len(cut) != len(flat) - 2:  # corners were left out
        cut = np.concatenate([cut, gaps(len(flat), cut)])
    return kept[without_needles(flat, cut)]


def signed_areas(flat: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Twice the area ``(F,)`` of triangles ``(F, 3)`` of points ``(n, 2)``, negative where they run clockwise."""
    a, b, c = flat[faces[:, 0]], flat[faces[:, 1]], flat[faces[:, 2]]
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def gaps(size: int, faces: np.ndarray) -> np.ndarray:
    """Triangles that are missing between the ``size`` sides of a polygon and the border of triangles in it."""
    # how often each side is still free in either direction
    balance: dict[tuple[int, int], int] = {}
    sides = [((corner, (corner + 1) % size), 1) for corner in range(size)]
    sides += [((int(face[k]), int(face[(k + 1) % 3])), -1) for face in faces for k in range(3)]
    for (start, end), sign in sides:
        key = (min(start, end), max(start, end))
        balance[key] = balance.get(key, 0) + (sign if start < end else -sign)
    # free sides as steps from corner to corner
    following: dict[int, list[int]] = {}
    for (low, high), net in balance.items():
        start, end = (low, high) if net > 0 else (high, low)
        following.setdefault(start, []).extend([end] * abs(net))
    # each closed walk along free sides is a gap, filled by a fan
    fillings = []
    for start in sorted(following):
        while following[start]:
            loop = [start]
            while following[loop[-1]]:
                loop.append(following[loop[-1]].pop())
                if loop[-1] == start:
                    break
            fillings += [(start, *pair) for pair in itertools.pairwise(loop[1:-1])]
    return np.array(fillings, np.int64).reshape(-1, 3)


def without_needles(flat: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Turn the longest edge of triangles without area to the corner that lies on it, where a neighbour allows it."""
    faces = faces.copy()
    smallest = FLAT * np.abs(signed_areas(flat, faces)).sum()
    for _ in range(len(faces)):
        needles = np.flatnonzero(signed_areas(flat, faces) <= smallest)
        if not any(turn_edge(flat, faces, needle, smallest) for needle in needles):
            break
    return faces


def turn_edge(flat: np.ndarray, faces: np.ndarray, needle: int, smallest: float) -> bool:
    """Turn the longest edge of one triangle, in place; False where its neighbour does not allow it.

    Args:
        flat: Points ``(n, 2)``.
        faces: Triangles ``(F, 3)``.
        needle: Which triangle.
        smallest: Both new triangles must have more than this area, twice.
    """
    corners = faces[needle]
    # the longest edge, and the corner that lies on it
    length = np.linalg.norm(flat[np.roll(corners, -1)] - flat[corners], axis=1)
    start, end, middle = np.roll(corners, -int(length.argmax()))
    # the neighbour across that edge is divided at the corner, if both halves have an area
    for side in range(3):
        for other in np.flatnonzero((faces[:, side] == end) & (faces[:, (side + 1) % 3] == start)):
            apex = faces[other, (side + 2) % 3]
            new = np.array([[middle, start, apex], [end, middle, apex]])
            if (signed_areas(flat, new) > smallest).all():
                faces[needle], faces[other] = new
                return True
    return False


def strip_triangles(strip: np.ndarray) -> np.ndarray:
    """Triangles ``(n - 2, 3)`` of a strip ``(n,)``, each second one turned so that all face the same side."""
    if len(strip) < 3:
        return np.zeros((0, 3), np.int64)
    faces = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces
