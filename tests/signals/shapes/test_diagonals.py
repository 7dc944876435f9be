"""Flat quadrilaterals on each other get the same triangles; nothing else is changed."""

import numpy as np
import trimesh

from wsrl.signals.shapes.diagonals import match_diagonals

CORNERS = np.array([(0, 0, 0), (2, 0, 0), (2, 1, 0), (0, 1, 0)], float)


def test_the_second_takes_the_diagonal_of_the_first_and_keeps_its_direction():
    """libigl/libigl#644."""
    one, turned = [(0, 1, 2), (0, 2, 3)], [(3, 2, 1), (3, 1, 0)]
    found = match_diagonals(CORNERS, np.array(one + turned))
    up = np.cross(CORNERS[found[:, 1]] - CORNERS[found[:, 0]], CORNERS[found[:, 2]] - CORNERS[found[:, 0]])[:, 2]
    assert np.sort(up).tolist() == [-2, -2, 2, 2]
    assert len({frozenset(face) for face in found.tolist()}) == 2


def test_bent_ones_and_solids_stay():
    bent = np.array([(0, 0, 0), (2, 0, 0.1), (2, 1, 0), (0, 1, 0.1)])
    faces = np.array([(0, 1, 2), (0, 2, 3), (3, 2, 1), (3, 1, 0)])  # a tetrahedron
    assert (match_diagonals(bent, faces) == faces).all()
    box = trimesh.creation.box()
    more = np.concatenate([box.faces, box.faces[:2]])
    assert (match_diagonals(box.vertices, more) == more).all()
