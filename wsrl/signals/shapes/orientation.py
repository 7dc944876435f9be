"""Which side of a face is outside, where the file does not say it well.

Faces that meet in pairs form patches; each is made consistent, then turned as a whole. A closed patch points out where
its volume is positive; one that lies inside another and was given the other way round is the wall of a void and stays
so. An open patch shows outwards the side from which more rays escape (Takayama et al., A simple method for correcting
facet orientations in polygon meshes based on ray casting, 2014); where both sides see as much, the file is believed.

Letters: V vertices, F faces, E undirected edges, K patches.
"""

from dataclasses import dataclass

import igl
import numpy as np

from wsrl.signals.shapes.triangles import double_areas, draw_from_groups, random_points, unit_normals

RAYS = 20_000
LEAST_RAYS, MOST_RAYS = 4, 200
OFFSET = 1e-4
MARGIN = 0.05


@dataclass(frozen=True, kw_only=True)
class Oriented:
    """Faces with a decided orientation.

    Attributes:
        faces: Faces ``(F, 3)``, counter-clockwise from outside.
        patch: Patch of each face ``(F,)``.
        closed: Whether each patch ``(K,)`` has no boundary.
        flipped: Number of patches that were turned, in part or as a whole.
        voids: Number of closed patches that are walls of voids.
    """

    faces: np.ndarray
    patch: np.ndarray
    closed: np.ndarray
    flipped: int
    voids: int


def orient(vertices: np.ndarray, faces: np.ndarray) -> Oriented:
    """Turn faces, none of them given twice, so that they point out; vertices are in normalised coordinates."""
    # neighbours in a patch agree, so only whole patches are left to turn
    consistent, patch = consistent_patches(vertices, faces)
    num = int(patch.max()) + 1
    # a patch is closed where its faces pass each edge as often in either direction
    edge_of, _, net = edge_balance(consistent, len(vertices), patch)
    open_edge = net != 0
    closed = np.ones(num, bool)
    closed[patch[open_edge[edge_of].any(axis=1)]] = False
    # closed patches are turned by their volume, open ones by what can be seen of them
    turn = np.zeros(num, bool)
    turn_closed, voids = turned_closed(vertices, consistent, patch, closed)
    turn |= turn_closed
    if not closed.all():
        turn |= turned_open(vertices, consistent, patch, closed)
    # a face runs the other way round where its patch is turned; count the patches in which that changed the file
    result = np.where(turn[patch][:, None], consistent[:, ::-1], consistent)
    changed = ~same_orientation(result, faces)
    flipped = len(np.unique(patch[changed]))
    return Oriented(faces=np.ascontiguousarray(result), patch=patch, closed=closed, flipped=flipped, voids=voids)


def edge_balance(
    faces: np.ndarray, num_vertices: int, group: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each edge is passed in one direction more than in the other.

    Args:
        faces: Faces ``(F, 3)``.
        num_vertices: Number of vertices.
        group: Edges of faces of different groups ``(F,)`` are different edges; None for one group.

    Returns:
        The edge of each side of each face ``(F, 3)``, the ends of each edge ``(E, 2)`` with the smaller index first,
        and the balance ``(E,)``; zero everywhere is a closed surface.
    """
    # the three sides of each face as directed edges (3F,), an undirected edge as one whole number
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    low, high = np.minimum(start, end), np.maximum(start, end)
    keys = low * num_vertices + high
    # numbers without gaps, so that the group fits in front of them
    if group is not None:
        _, keys = np.unique(keys, return_inverse=True)
        keys = keys + np.repeat(group, 3) * (int(keys.max()) + 1)
    _, first, edge = np.unique(keys, return_index=True, return_inverse=True)
    # +1 for each passage from the smaller to the larger vertex, -1 for each back
    net = np.bincount(edge, weights=np.where(start < end, 1, -1)).astype(np.int64)
    return edge.reshape(-1, 3), np.stack([low[first], high[first]], axis=1), net


def consistent_patches(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make neighbours agree; components that are closed and consistent as given are left alone.

    Returns:
        Faces with the orientation that most of the area of their patch had, and the patch of each face.
    """
    # components with an edge that is not passed once in each direction are doubtful
    _, component = igl.facet_components(faces)
    edge_of, _, net = edge_balance(faces, len(vertices))
    unbalanced = np.unique(component[(net != 0)[edge_of].any(axis=1)])
    doubtful = np.isin(component, unbalanced)
    patch = component.astype(np.int64)
    result = faces.copy()
    if doubtful.any():
        # make those consistent across edges of two faces, which may cut them into parts
        turned, part = igl.bfs_orient(np.ascontiguousarray(faces[doubtful]))
        # each part keeps the sense that most of its area has in the file
        area = double_areas(vertices[turned]) + 1e-300
        agrees = np.where(same_orientation(turned, faces[doubtful]), area, -area)
        wrong = np.bincount(part, weights=agrees) < 0
        result[doubtful] = np.where(wrong[part][:, None], turned[:, ::-1], turned)
        patch[doubtful] = part + component.max() + 1
    return result, np.unique(patch, return_inverse=True)[1]


def same_orientation(faces: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether faces ``(F, 3)`` pass their corners in the same direction as others with the same corners."""
    # where the first corner stands in the other face, and what follows it there
    offset = (others == faces[:, :1]).argmax(axis=1)
    following = np.take_along_axis(others, ((offset + 1) % 3)[:, None], axis=1)[:, 0]
    return following == faces[:, 1]


def turned_closed(
    vertices: np.ndarray, faces: np.ndarray, patch: np.ndarray, closed: np.ndarray
) -> tuple[np.ndarray, int]:
    """Which closed patches ``(K,)`` have to be turned, and how many are walls of voids.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Faces ``(F, 3)``, consistent in each patch.
        patch: Patch of each face.
        closed: Whether each patch is closed.
    """
    corners = vertices[faces]
    # six times the volume of a patch: the sum of det(a, b, c), negative where it points in
    volume = np.bincount(patch, weights=np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])))
    negative = closed & (volume < 0)
    positive = closed & (volume > 0)
    if not (negative.any() and positive.any()):
        return negative, 0
    # all closed patches turned out, so that the winding number says which lie inside others
    shells = closed[patch]
    outward = np.where(negative[patch][:, None], faces[:, ::-1], faces)
    contained = contained_patches(vertices, outward[shells], patch[shells], len(closed))
    # the sense that the file gives to outer shells; inside of them the other sense means the wall of a void
    outermost = closed & ~contained
    usual = np.sign(np.where(outermost, volume, 0).sum())
    void = contained & (np.sign(volume) == -usual)
    return np.where(void, ~negative, negative) & closed, int(void.sum())


def contained_patches(vertices: np.ndarray, faces: np.ndarray, patch: np.ndarray, num: int) -> np.ndarray:
    """Which patches ``(num,)`` of closed ones that point out lie inside others, judged at a few of their faces."""
    order = np.argsort(patch, kind="stable")
    size = np.bincount(patch, minlength=num)
    start = np.cumsum(size) - size
    present = np.flatnonzero(size)
    # up to four faces of each patch: its first, its last and two between
    rows = [order[start[present] + (size[present] - 1) * step // 3] for step in range(4)]
    inside = np.zeros(num, bool)
    inside[present] = True
    for row in rows:
        corners = vertices[faces[row]]
        # just outside of the face a patch within another has a winding number of 1
        outside = corners.mean(1) + OFFSET * unit_normals(corners)
        inside[present] &= igl.fast_winding_number(vertices, faces, outside) > 0.5
    return inside


def turned_open(vertices: np.ndarray, faces: np.ndarray, patch: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Which open patches ``(K,)`` hide the side that should be seen.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Faces ``(F, 3)``, consistent in each patch.
        patch: Patch of each face.
        closed: Whether each patch is closed.
    """
    generator = np.random.default_rng(0)
    areas = np.where(closed[patch], 0, double_areas(vertices[faces]))
    # the faces that rays start from; faces without area stop none
    rays = rays_of_patches(areas, patch, len(closed), generator)
    solid = double_areas(vertices[faces]) > 0
    target = np.ascontiguousarray(faces[solid])
    tree = igl.AABB()
    tree.init(vertices, target)
    corners = vertices[faces[rays]]
    # starts at even places of the faces (R, 3), directions spread evenly over the half space in front
    points, normals = random_points(corners, generator), unit_normals(corners)
    directions = generator.standard_normal(points.shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions *= np.where(np.einsum("ri,ri->r", directions, normals) < 0, -1, 1)[:, None]
    # how many rays leave without a hit, from the front and, mirrored, from the back
    escaped = []
    for side in (1.0, -1.0):
        origin = points + side * OFFSET * normals
        hit, _, _ = tree.intersect_ray_first(vertices, target, origin, side * directions)
        escaped.append(np.bincount(patch[rays], weights=hit < 0, minlength=len(closed)))
    # turned where the back sees clearly more; where both see as much, the file is believed
    front, back = escaped
    shot = np.bincount(patch[rays], minlength=len(closed))
    return ~closed & (back - front > MARGIN * shot)


def rays_of_patches(areas: np.ndarray, patch: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
    """Faces that rays start from, some of every patch, large ones more often, none whose area is 0.

    Returns:
        Indices of faces, sorted by patch.
    """
    total = np.bincount(patch, weights=areas, minlength=num)
    # rays in proportion to the area of a patch, within bounds
    rays = np.ceil(RAYS * total / max(total.sum(), 1e-300)).clip(LEAST_RAYS, MOST_RAYS).astype(np.int64)
    rays[total == 0] = 0
    return draw_from_groups(areas, patch, rays, generator)
