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

from wsrl.signals.orientation import edge_balance
from wsrl.signals.soup import double_areas

OFFSET = 1e-4
ACCURACY = 2.0
SAMPLES = 4_000
BOUNDARY, BURIED, SHEET = 0, 1, 2
NEGLIGIBLE = 1e-3
LONGEST_MIXED = 0.03
SPACING = 0.05


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

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Winding number at each of the points ``(P, 3)``.

        Args:
            points: Points, float64.
        """
        if self._tree is None or not len(points):
            return np.zeros(len(points))
        return self._tree.winding_number(np.ascontiguousarray(points), ACCURACY)


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
        """Winding number just outside and just inside of each sample.

        Args:
            winding: Of which faces.
        """
        both = winding(np.concatenate([self.points + OFFSET * self.normals, self.points - OFFSET * self.normals]))
        return both[: len(self.points)], both[len(self.points) :]


def sample(triangles: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> Samples:
    """So many points evenly on each triangle.

    Args:
        triangles: Corners ``(T, 3, 3)`` of triangles with an area.
        numbers: How many points on each ``(T,)``.
        generator: Source of the randomness; a triangle with a single point has it at its centroid.
    """
    chosen = np.repeat(np.arange(len(triangles)), numbers)
    weights = generator.dirichlet((1, 1, 1), len(chosen))
    weights[numbers[chosen] == 1] = 1 / 3
    corners = triangles[chosen]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Samples(triangle=chosen, points=np.einsum("rc,rci->ri", weights, corners), normals=normals)


def numbers_by_area(areas: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
    """How many of about ``num`` points fall on each triangle; a random rounding keeps the share of small ones.

    Args:
        areas: Areas ``(T,)``.
        num: How many points together.
        generator: Source of the randomness.
    """
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
    numbers = numbers_by_area(areas, SAMPLES, generator)
    largest = np.zeros(int(patch.max()) + 1, np.int64)
    largest[patch[np.argsort(areas, kind="stable")]] = np.argsort(areas, kind="stable")
    numbers[largest] = np.maximum(numbers[largest], 1)
    samples = sample(triangles, numbers, generator)
    outer, inner = samples.sides(Winding(vertices, faces))
    middle = (outer + inner) / 2
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
    _, ends, net = edge_balance(faces, len(vertices))
    rim, net = ends[net != 0], net[net != 0]
    if not len(rim):
        return vertices, np.zeros((0, 3), np.int64), 0
    rim = np.where((net > 0)[:, None], rim[:, ::-1], rim)  # a cap passes the edge the other way
    names, flat = np.unique(rim, return_inverse=True)
    flat = flat.reshape(-1, 2)
    graph = coo_array((np.ones(len(flat)), (flat[:, 0], flat[:, 1])), shape=(len(names), len(names)))
    num, of_vertex = connected_components(graph, directed=False)
    size = np.bincount(of_vertex, minlength=num)[:, None]
    tips = np.stack([np.bincount(of_vertex, weights=vertices[names, axis]) for axis in range(3)], axis=1) / size
    hole = of_vertex[flat[:, 0]]
    extended = np.concatenate([vertices, tips])
    cone = np.concatenate([rim, (len(vertices) + hole)[:, None]], axis=1)
    open_holes = is_hole(extended, faces, cone, hole, num, generator)
    chosen = open_holes[hole]
    repeated = np.repeat(cone[chosen], np.abs(net[chosen]), axis=0)
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
    areas = double_areas(vertices[cone])
    total = np.bincount(hole, weights=areas, minlength=num)
    share = areas / np.maximum(total[hole], 1e-300)
    numbers = np.floor(12 * share + generator.random(len(share))).astype(np.int64)
    numbers[areas < 1e-9] = 0
    samples = sample(vertices[cone], numbers, generator)
    outer, inner = samples.sides(Winding(vertices, faces))
    middle = (outer + inner) / 2
    meets = (middle > 0.3) & (middle < 0.7) & (np.abs(outer - inner) < 0.4)
    owner = hole[samples.triangle]
    sampled = np.bincount(owner, minlength=num)
    return (sampled > 0) & (np.bincount(owner, weights=meets, minlength=num) > 0.5 * sampled)


def classify(
    triangles: np.ndarray, winding: Winding, generator: np.random.Generator, *, closed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What each triangle is; large ones that are several things are divided.

    Args:
        triangles: Corners ``(T, 3, 3)`` of triangles with an area.
        winding: Decides what is inside.
        generator: Source of the randomness.
        closed: Whether they are one closed surface, which is left as it is if nearly all of it bounds.

    Returns:
        Triangles, those that bound turned to point out, and the class of each.
    """
    areas = double_areas(triangles)
    if closed:
        samples = sample(triangles, numbers_by_area(areas, SAMPLES, generator), generator)
        kinds, _ = kinds_of(samples, winding)
        if (kinds != BOUNDARY).mean() < NEGLIGIBLE:
            return triangles, np.full(len(triangles), BOUNDARY)
    done, spacing = [], SPACING
    while len(triangles):
        areas = double_areas(triangles)
        samples = sample(triangles, np.ceil(areas / 2 / spacing**2).astype(np.int64).clip(1, 400), generator)
        kinds, reversed_ = kinds_of(samples, winding)
        votes = np.stack([np.bincount(samples.triangle, weights=kinds == kind) for kind in range(3)], axis=1)
        mixed = (votes.max(1) < votes.sum(1)) & (longest_edge(triangles) > LONGEST_MIXED)
        turned = np.bincount(samples.triangle, weights=reversed_) > votes[:, BOUNDARY] / 2
        settled = np.where(turned[:, None, None], triangles[:, ::-1], triangles)[~mixed]
        done.append((settled, votes.argmax(1)[~mixed]))
        triangles, spacing = divided(triangles[mixed]), spacing / 2
    return np.concatenate([part for part, _ in done]), np.concatenate([kind for _, kind in done])


def kinds_of(samples: Samples, winding: Winding) -> tuple[np.ndarray, np.ndarray]:
    """Class of each sample ``(R,)``, and whether it bounds with its normal pointing in.

    Args:
        samples: Points on triangles.
        winding: Decides what is inside.
    """
    outer, inner = (side > 0.5 for side in samples.sides(winding))
    return np.where(outer & inner, BURIED, np.where(outer | inner, BOUNDARY, SHEET)), outer & ~inner


def longest_edge(triangles: np.ndarray) -> np.ndarray:
    """Length ``(T,)`` of the longest edge of each triangle.

    Args:
        triangles: Corners ``(T, 3, 3)``.
    """
    return np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1, initial=0)


def divided(triangles: np.ndarray) -> np.ndarray:
    """Halve each triangle twice across its longest edges, which keeps the pieces from becoming needles.

    Args:
        triangles: Corners ``(T, 3, 3)``.
    """
    for _ in range(2):
        length = np.linalg.norm(np.roll(triangles, -1, axis=1) - triangles, axis=2)
        first = length.argmax(axis=1)
        a, b, c = (np.take_along_axis(triangles, ((first + k) % 3)[:, None, None], axis=1)[:, 0] for k in range(3))
        middle = (a + b) / 2
        triangles = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
    return triangles
