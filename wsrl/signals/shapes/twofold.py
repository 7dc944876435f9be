"""Faces that were given in both orientations: the skin of a solid, or walls in it.

Letters: F faces, E undirected edges.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsrl.signals.shapes.orientation import edge_balance
from wsrl.signals.shapes.soup import Soup


def split_twofold(soup: Soup) -> tuple[np.ndarray, np.ndarray]:
    """Faces that were given in both orientations: where they close what the others leave open they are its skin.

    They are judged by sheets, which end where they meet faces that were given once, or a third one. A sheet that ends
    mostly at open edges of those closes them; one that ends mostly at edges that are closed without it is a wall in the
    solid or a fin on it. One that meets none is a skin of its own.

    Returns:
        Faces that can bound a solid, and those that cannot.
    """
    if not soup.twofold.any():
        return soup.faces, soup.faces[:0]
    edge_of, ends, _ = edge_balance(soup.faces, len(soup.vertices))
    once, twice = (np.bincount(edge_of[group].ravel(), minlength=len(ends)) for group in (~soup.twofold, soup.twofold))
    # sheets: doubled faces that meet in pairs, where nothing else does
    doubled = np.flatnonzero(soup.twofold)
    inner = (once == 0) & (twice == 2)
    sides = edge_of[doubled]  # (F, 3)
    face, side = np.nonzero(inner[sides])
    meets = coo_array((np.ones(len(face)), (face, sides[face, side])), (len(doubled), len(ends))).tocsr()
    num, sheet = connected_components(meets @ meets.T, directed=False)
    # how long each sheet borders on faces that it would close, and on those that are closed without it
    length = np.linalg.norm(soup.vertices[ends[:, 0]] - soup.vertices[ends[:, 1]], axis=1)
    border = np.where(inner | (once == 0), 0, length)[sides]
    odd = (once % 2 == 1)[sides]
    closing, crossing = (
        np.bincount(sheet, weights=(border * sides_of).sum(axis=1), minlength=num) for sides_of in (odd, ~odd)
    )
    loose = np.zeros(len(soup.faces), bool)
    loose[doubled] = (crossing > closing)[sheet]
    return (soup.faces[~loose], soup.faces[loose]) if not loose.all() else (soup.faces, soup.faces[:0])
