"""Quadrilaterals that were given twice and divided along different diagonals: made to have the same two triangles.

Letters: V vertices, F faces, Q pairs of faces that share an edge.
"""

import numpy as np

FLAT = 1e-5
"""Six times the volume of four points of one plane, in cubes of their distance: what rounding to 32 bits leaves."""


def match_diagonals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces ``(F, 3)`` in which two flat quadrilaterals with the same corners have the same triangles.

    Without it a side that is given both ways, each divided by its own diagonal, would be no doubled face.

    Args:
        vertices: Vertices ``(V, 3)``, equal ones joined.
        faces: Faces ``(F, 3)`` with three different corners.
    """
    start, end, third = (np.roll(faces, -step, axis=1).ravel() for step in range(3))
    key = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    order = np.argsort(key, kind="stable")
    new = np.flatnonzero(np.append(True, np.diff(key[order]) != 0))
    count = np.diff(np.append(new, len(order)))
    # quadrilaterals: two faces on both sides of an edge that no other face has
    first, second = order[new[count == 2]], order[new[count == 2] + 1]
    quads = np.stack([start[first], end[first], third[first], third[second]], axis=1)  # (Q, 4)
    a, b, c, d = np.moveaxis(vertices[quads], 1, 0)
    volume = np.einsum("qi,qi->q", np.cross(b - a, c - a), d - a)
    flat = np.abs(volume) <= FLAT * np.linalg.norm(b - a, axis=1) ** 3
    flat &= (start[first] == end[second]) & (quads[:, 2] != quads[:, 3])
    first, second, quads = first[flat], second[flat], quads[flat]
    # those with the same corners, one after the other
    corners = np.sort(quads, axis=1)
    by_corners = np.lexsort(corners.T)
    same = (corners[by_corners[1:]] == corners[by_corners[:-1]]).all(axis=1)
    one, other = by_corners[:-1][same], by_corners[1:][same]
    crossed = (np.sort(quads[one, :2], axis=1) == np.sort(quads[other, 2:], axis=1)).all(axis=1)
    one, other = one[crossed], other[crossed]
    # the other takes the triangles of the one, turned where it faces the other way
    result = faces.copy()
    normals = [
        np.cross(vertices[end[row]] - vertices[start[row]], vertices[third[row]] - vertices[start[row]])
        for row in (first[one], first[other])
    ]
    turned = np.einsum("qi,qi->q", *normals) < 0
    for half in (first, second):
        source = faces[half[one] // 3]
        result[half[other] // 3] = np.where(turned[:, None], source[:, ::-1], source)
    return result
