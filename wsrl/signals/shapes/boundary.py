"""Which triangles of a soup bound a solid: the winding number at both of their sides tells.

A face that has the inside on one side only is *boundary*; one with the inside on both is *buried*, where parts overlap
or touch; one with the outside on both is a *sheet*. Patches that are buried or sheets as a whole take no part in the
winding number, which they would only blur. Holes through which inside and outside meet are closed by caps.

Letters: V vertices, F faces, T triangles, R samples, K patches.
"""

from dataclasses import dataclass

import igl
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsrl.signals.shapes.orientation import OFFSET, edge_balance
from wsrl.signals.shapes.triangles import double_areas, draw_from_groups, longest_edge, random_points, unit_normals

ACCURACY, ACCURACY_OF_SIDES = 1.5, 1.25
"""Of the far field, in radii of what is far: libigl's own default is 2; from 1.25 on, no side of a face changes."""
SAMPLES = 4_000
MOST_SAMPLES = 400
BOUNDARY, BURIED, SHEET = 0, 1, 2
NEGLIGIBLE = 1e-3
SPACING = 0.035
COARSEST, FINEST = 0.1, 0.02
CRACK = 1e-6


class Winding:
    """The winding number of a set of faces, its hierarchy built once.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Faces ``(F, 3)``; with none, everything is outside.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        self._tree = igl.FastWindingNumberBVH() if len(faces) else None
        if self._tree is not None:
            self._tree.init(vertices, np.ascontiguousarray(faces))

    def __call__(self, points: np.ndarray, accuracy: float = ACCURACY) -> np.ndarray:
        """Winding number at each of the points ``(P, 3)``."""
        if self._tree is None or not len(points):
            return np.zeros(len(points))
        return self._tree.winding_number(np.ascontiguousarray(points), accuracy)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Points on triangles.

    Attributes:
        triangle: Index of the triangle of each ``(R,)``.
        points: Points ``(R, 3)``.
        normals: Unit normals ``(R, 3)``.
    """

    triangle: np.ndarray
    points: np.ndarray
    normals: np.ndarray

    def sides(self, winding: Winding) -> tuple[np.ndarray, np.ndarray]:
        """Winding number of some faces just outside and just inside of each sample."""
        both = np.concatenate([self.points + OFFSET * self.normals, self.points - OFFSET * self.normals])
        both = winding(both, ACCURACY_OF_SIDES)
        return both[: len(self.points)], both[len(self.points) :]


def sample(triangles: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> Samples:
    """One point, at an even place, on each of the triangles ``(T, 3, 3)`` in ``rows (R,)``, which may repeat."""
    corners = triangles[rows]
    return Samples(triangle=rows, points=random_points(corners, generator), normals=unit_normals(corners))


def numbers_by_area(areas: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
    """How many of about ``num`` points fall on each of ``areas (T,)``; random rounding gives small ones their share."""
    return np.floor(num * areas / areas.sum() + generator.random(len(areas))).astype(np.int64)


def winding_patches(
    vertices: np.ndarray, faces: np.ndarray, patch: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Which patches ``(K,)`` take part in the winding number.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Oriented faces ``(F, 3)``, none without area.
        patch: Patch of each face.
        generator: Source of the randomness.

    Returns:
        True for patches of which a quarter, at least, has the outside on one side and the inside on the other.
    """
    triangles = vertices[faces]
    areas = double_areas(triangles)
    # points in proportion to the area, and one at least on the largest face of each patch
    numbers = numbers_by_area(areas, SAMPLES, generator)
    largest = np.zeros(int(patch.max()) + 1, np.int64)
    largest[patch[np.argsort(areas, kind="stable")]] = np.argsort(areas, kind="stable")
    numbers[largest] = np.maximum(numbers[largest], 1)
    samples = sample(triangles, np.repeat(np.arange(len(faces)), numbers), generator)
    outer, inner = samples.sides(Winding(vertices, faces))
    middle = (outer + inner) / 2
    # a face bounds where the two sides are 0 and 1, give or take what holes let in
    bounding = (middle > 0.25) & (middle < 0.75)
    owner = patch[samples.triangle]
    return np.bincount(owner, weights=bounding) >= 0.25 * np.bincount(owner)


def caps(vertices: np.ndarray, faces: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Close the holes through which inside and outside meet.

    The edges that faces pass more often in one direction form cycles; a cone from the centroid of each connected set of
    them closes it exactly. A cone is a cap where the winding number is about a half and continuous: neither on a sheet
    that the edges surround nor deep inside or outside.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Oriented faces ``(F, 3)``.
        generator: Source of the randomness.

    Returns:
        Vertices with the tips of the cones appended, the faces of the caps, and the number of holes closed.
    """
    # the rim of holes: edges that are passed more often in one direction
    _, ends, net = edge_balance(faces, len(vertices))
    rim, net = ends[net != 0], net[net != 0]
    if not len(rim):
        return vertices, np.zeros((0, 3), np.int64), 0
    rim = np.where((net > 0)[:, None], rim[:, ::-1], rim)  # a cap passes the edge the other way
    # rims that hang together are one hole, numbered over the vertices on rims alone
    names, flat = np.unique(rim, return_inverse=True)
    flat = flat.reshape(-1, 2)
    graph = coo_array((np.ones(len(flat)), (flat[:, 0], flat[:, 1])), shape=(len(names), len(names)))
    num, of_vertex = connected_components(graph, directed=False)
    size = np.bincount(of_vertex, minlength=num)[:, None]
    # a cone over each hole, its tip at the mean of the rim
    tips = np.stack([np.bincount(of_vertex, weights=vertices[names, axis]) for axis in range(3)], axis=1) / size
    hole = of_vertex[flat[:, 0]]
    extended = np.concatenate([vertices, tips])
    cone = np.concatenate([rim, (len(vertices) + hole)[:, None]], axis=1)
    # close those where inside and outside meet, as often as the rim is passed too often
    open_holes = is_hole(extended, faces, cone, hole, num, generator)
    closing = open_holes[hole]
    repeated = np.repeat(cone[closing], np.abs(net[closing]), axis=0)
    return extended, repeated, int(open_holes.sum())


def is_hole(
    vertices: np.ndarray,
    faces: np.ndarray,
    cone: np.ndarray,
    hole: np.ndarray,
    num: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Whether inside and outside meet in each cone ``(num,)``.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Oriented faces ``(F, 3)``.
        cone: Faces of all cones.
        hole: Which cone each of them belongs to.
        num: Number of cones.
        generator: Source of the randomness.
    """
    # about twelve points on each cone, by area
    areas = double_areas(vertices[cone])
    total = np.bincount(hole, weights=areas, minlength=num)
    share = areas / np.maximum(total[hole], 1e-300)
    numbers = np.floor(12 * share + generator.random(len(share))).astype(np.int64)
    numbers[areas < 1e-9] = 0
    samples = sample(vertices[cone], np.repeat(np.arange(len(cone)), numbers), generator)
    outer, inner = samples.sides(Winding(vertices, faces))
    middle = (outer + inner) / 2
    # in a hole the winding number is about a half and goes through without a jump; on a sheet it jumps by 1
    meets = (middle > 0.3) & (middle < 0.7) & (np.abs(outer - inner) < 0.4)
    owner = hole[samples.triangle]
    sampled = np.bincount(owner, minlength=num)
    cracks = total < CRACK  # of no width: closing them moves nothing
    return cracks | (sampled > 0) & (np.bincount(owner, weights=meets, minlength=num) > 0.5 * sampled)


def classify(
    triangles: np.ndarray, patch: np.ndarray, winding: Winding, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What each triangle is; large ones that are several things are divided.

    Small neighbours in a patch are judged together, by samples in proportion to their area; where the samples differ,
    smaller groups are formed, down to single triangles.

    Args:
        triangles: Corners ``(T, 3, 3)`` of triangles with an area, within [-1, 1].
        patch: Patch of each.
        winding: Decides what is inside.
        generator: Source of the randomness.

    Returns:
        Triangles, those that bound turned to point out, and the class of each.
    """
    done, cell = [], COARSEST
    while len(triangles):
        # small triangles of a patch are judged by cells of space, large ones each by itself
        large = longest_edge(triangles) > cell
        group = groups(triangles, patch, cell, large | (cell < FINEST))
        samples = sample_groups(triangles, group, generator)
        kinds, reversed_ = kinds_of(samples, winding)
        owner = group[samples.triangle]
        # settled where all samples of a group are of one kind (group, kind)
        votes = np.stack([np.bincount(owner, weights=kinds == kind) for kind in range(3)], axis=1)
        settled = (votes.max(1) == votes.sum(1))[group]
        # what bounds is turned so that most of its samples point out
        turned = (np.bincount(owner, weights=reversed_) > votes[:, BOUNDARY] / 2)[group]
        facing = np.where(turned[:, None, None], triangles[:, ::-1], triangles)
        done.append((facing[settled], votes.argmax(1)[group][settled]))
        # the rest once more in cells of half the side; large triangles are divided
        pieces, whole = ~settled & large, ~settled & ~large
        triangles = np.concatenate([triangles[whole], divided(triangles[pieces])])
        patch = np.concatenate([patch[whole], np.tile(patch[pieces], 4)])
        cell /= 2
    return np.concatenate([part for part, _ in done]), np.concatenate([kind for _, kind in done])


def groups(triangles: np.ndarray, patch: np.ndarray, cell: float, alone: np.ndarray) -> np.ndarray:
    """Group ``(T,)`` of each triangle: those of one patch in one cell of space.

    Args:
        triangles: Corners ``(T, 3, 3)``, within [-1, 1].
        patch: Patch of each.
        cell: Side of the cells.
        alone: Triangles that form a group by themselves.
    """
    # cell of each centre, and with the patch one whole number for it; negative ones stand alone
    cells = np.floor((triangles.mean(axis=1) + 1) / cell).astype(np.int64)
    side = int(np.ceil(2 / cell)) + 1
    keys = ((patch * side + cells[:, 0]) * side + cells[:, 1]) * side + cells[:, 2]
    keys[alone] = -1 - np.flatnonzero(alone)
    return np.unique(keys, return_inverse=True)[1]


def sample_groups(triangles: np.ndarray, group: np.ndarray, generator: np.random.Generator) -> Samples:
    """Points on groups of triangles ``(T, 3, 3)``, about ``SPACING`` apart, at least one on each group."""
    # so many samples that they are SPACING apart on the area, or twice that along the longest edge
    areas = double_areas(triangles) / 2
    total = np.bincount(group, weights=areas)
    length = np.zeros(len(total))
    np.maximum.at(length, group, longest_edge(triangles))
    numbers = np.ceil(np.maximum(total / SPACING**2, length / (2 * SPACING))).clip(1, MOST_SAMPLES).astype(np.int64)
    return sample(triangles, draw_from_groups(areas, group, numbers, generator), generator)


def kinds_of(samples: Samples, winding: Winding) -> tuple[np.ndarray, np.ndarray]:
    """Class of each sample ``(R,)``, and whether it bounds with its normal pointing in."""
    outer, inner = (side > 0.5 for side in samples.sides(winding))
    return np.where(outer & inner, BURIED, np.where(outer | inner, BOUNDARY, SHEET)), outer & ~inner


def divided(triangles: np.ndarray) -> np.ndarray:
    """Halve triangles ``(T, 3, 3)`` twice across their longest edges, so that the pieces do not become needles."""
    for _ in range(2):
        # from (a, b, c) with the longest edge ab to (a, m, c) and (m, b, c), m the middle of ab
        length = np.linalg.norm(np.roll(triangles, -1, axis=1) - triangles, axis=2)
        first = length.argmax(axis=1)
        a, b, c = (np.take_along_axis(triangles, ((first + k) % 3)[:, None, None], axis=1)[:, 0] for k in range(3))
        middle = (a + b) / 2
        triangles = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
    return triangles
