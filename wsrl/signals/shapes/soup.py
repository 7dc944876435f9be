"""Triangles as people have them, cleaned without changing where they are.

Letters: V vertices, F faces, E undirected edges.
"""

from dataclasses import dataclass, field

import numpy as np

from wsrl.errors import SignalError
from wsrl.signals.shapes.diagonals import match_diagonals
from wsrl.signals.shapes.triangles import double_areas

NORMALISED_RADIUS = 0.9
MERGE_DISTANCE = 1e-6
SMALLEST_DOUBLE_AREA = 1e-13


@dataclass(frozen=True, kw_only=True)
class Soup:
    """Clean triangles in normalised coordinates.

    Attributes:
        vertices: Vertices ``(V, 3)``, float64; no two are closer than about ``MERGE_DISTANCE``.
        faces: Faces ``(F, 3)``; their indices are in range, their corners finite and different.
        twofold: Whether each face ``(F,)`` was given in both orientations, so that it encloses nothing.
        center: Point of the file's coordinates that became the origin.
        scale: ``file = normalised * scale + center``.
        counts: What was found, by name.
    """

    vertices: np.ndarray
    faces: np.ndarray
    twofold: np.ndarray
    center: np.ndarray
    scale: float
    counts: dict[str, float] = field(default_factory=dict)


def clean(vertices: np.ndarray, faces: np.ndarray) -> Soup:
    """Drop what is no triangle, normalise, join equal vertices, and keep one of equal faces.

    Args:
        vertices: Vertices ``(V, 3)`` in the file's units.
        faces: Faces ``(F, 3)`` of any content.

    Raises:
        SignalError: No triangle with an area is left.
    """
    if not len(faces):
        raise SignalError("it has no faces" + (", only points" if len(vertices) else ""), allowed="a mesh of triangles")
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    # faces whose corners exist and are finite
    in_range = ((faces >= 0) & (faces < len(vertices))).all(axis=1)
    finite = np.zeros(len(faces), bool)
    finite[in_range] = np.isfinite(vertices[faces[in_range]]).all(axis=(1, 2))
    counts = {"num_faces_file": len(faces), "out_of_range": int((~in_range).sum())}
    counts["not_finite"] = int((in_range & ~finite).sum())
    faces = faces[finite]
    if not len(faces):
        raise SignalError(f"none of its {len(finite):,} faces has three finite vertices")
    # vertices that no face uses must not move the centre
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    center, scale = normalisation(vertices)
    vertices, faces = join_vertices((vertices - center) / scale, faces)
    # faces that joining has made a line, then faces that were given more than once
    different = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    faces = match_diagonals(vertices, faces[different])
    faces, twofold, counts["duplicates"] = unique_faces(faces, len(vertices))
    # faces without area stay, since they hold edges together; all of them enclose nothing
    flat = double_areas(vertices[faces]) < SMALLEST_DOUBLE_AREA
    counts["zero_area"] = int((~different).sum() + flat.sum())
    if flat.all():
        raise SignalError("all its faces have no area")
    return Soup(vertices=vertices, faces=faces, twofold=twofold, center=center, scale=scale, counts=counts)


def normalisation(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre of the box around vertices ``(V, 3)``, and the scale that puts the farthest at ``NORMALISED_RADIUS``.

    Raises:
        SignalError: All vertices are one point, or too far apart for numbers of double precision.
    """
    with np.errstate(over="ignore"):
        center = vertices.min(0) / 2 + vertices.max(0) / 2
        scale = float(np.linalg.norm(vertices - center, axis=1).max()) / NORMALISED_RADIUS
    if not (scale > 0 and np.isfinite(scale)):
        raise SignalError("all its vertices are one point" if scale == 0 else "its vertices are too far apart")
    return center, scale


def join_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give equal vertices ``(V, 3)`` in [-1, 1] one index in the faces ``(F, 3)``; the first of them stays."""
    cells = np.rint((vertices + 1) / MERGE_DISTANCE).astype(np.int64)  # below 2^21 along each axis
    keys = cells[:, 0] << 42 | cells[:, 1] << 21 | cells[:, 2]
    _, first, joined = np.unique(keys, return_index=True, return_inverse=True)
    return vertices[first], joined[faces]


def unique_faces(faces: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray, int]:
    """One face of each that has the same corners.

    Args:
        faces: Faces ``(F, 3)`` with three different corners.
        num_vertices: Number of vertices.

    Returns:
        The faces that are kept, in order; whether each was given equally often in both orientations; how many were
        dropped.
    """
    # faces with the same three corners are one group
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T[::-1])
    ordered = corners[order]
    new = np.ones(len(faces), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.cumsum(new) - 1
    # +1 for those that run from the smallest corner to the middle one, -1 for the others
    smallest = faces.argmin(axis=1)
    following = np.take_along_axis(faces, ((smallest + 1) % 3)[:, None], axis=1)[:, 0]
    even = np.where(following == corners[:, 1], 1, -1)[order]
    net = np.bincount(group, weights=even, minlength=int(new.sum()))
    first = np.full(int(new.sum()), len(faces), np.int64)
    # of the copies with the prevailing orientation, the first
    prevails = (even * net[group] > 0) | (net[group] == 0)
    np.minimum.at(first, group[prevails], order[prevails])
    kept = np.sort(first)
    twofold = np.zeros(len(faces), bool)
    twofold[first] = net == 0
    return faces[kept], twofold[kept], len(faces) - len(kept)
