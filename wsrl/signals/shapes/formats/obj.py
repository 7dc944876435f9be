"""Wavefront OBJ: vertices and faces; groups, materials, normals and texture coordinates change no geometry.

Indices count from 1, negative ones back from the last vertex before their own line.
"""

from collections import Counter

import numpy as np

from wsrl.errors import SignalError, printable
from wsrl.signals.shapes.formats.polygons import Polygons
from wsrl.signals.shapes.formats.words import not_number, plain

# Statements that go on in the next line after a backslash; a name or a comment may end in one.
CONTINUED = (b"v", b"vn", b"vt", b"vp", b"f", b"fo", b"l", b"p")
OTHERS = {b"l": "lines", b"p": "points", b"curv": "curves", b"curv2": "curves", b"surf": "free-form surfaces"}


def read_obj(data: bytes) -> Polygons:
    """Vertices and faces of the content of a file.

    Raises:
        SignalError: A statement is damaged, or the geometry is not made of faces.
    """
    vertices: list[tuple[float, float, float]] = []
    corners: list[int] = []
    sizes: list[int] = []
    others: Counter = Counter()
    rows = iter(enumerate(plain(data).splitlines(), 1))
    for number, row in rows:
        # a statement: its line without a comment, and the lines that go on with it
        words = row.partition(b"#")[0].split()
        if not words:
            continue
        kind = words[0].lower()
        while kind in CONTINUED and words[-1].endswith(b"\\"):
            words[-1] = words[-1][:-1]
            words = [word for word in words if word] + next(rows, (0, b""))[1].partition(b"#")[0].split()
        # vertices and faces are kept, other geometry is counted, all else passed over
        if kind == b"v":
            vertices.append(vertex(words, number))
        elif kind in (b"f", b"fo"):
            face = indices(words, number, len(vertices))
            corners += face
            sizes.append(len(face))
        elif kind in OTHERS:
            others[OTHERS[kind]] += 1
    # refuse what would be lost or points nowhere
    if others["free-form surfaces"]:
        raise SignalError("it holds free-form surfaces (surf)", allowed="polygons", do="export it as polygons")
    lowest, highest = min(corners, default=0), max(corners, default=-1)
    if not (lowest >= 0 and highest < len(vertices)):
        raise SignalError(
            f"damaged: a face with vertex {highest + 1 if lowest >= 0 else lowest + 1} is out of bounds",
            allowed=f"1 to {len(vertices)}, or negative ones that count back from the face's own line",
        )
    points = np.array(vertices, np.float64).reshape(-1, 3)
    return Polygons(
        vertices=points, corners=np.array(corners, np.int64), sizes=np.array(sizes, np.int64), others=others
    )


def vertex(words: list[bytes], number: int) -> tuple[float, float, float]:
    """The coordinates in ``v x y z``; a colour behind them is passed over, a weight must be 1."""
    try:
        x, y, z = map(float, words[1:4])
        weight = float(words[4]) if len(words) == 5 else 1.0
    except ValueError:
        what = f"{not_number(words[1:5])} is no number" if len(words) > 3 else f"a vertex of {len(words) - 1} numbers"
        raise SignalError(f"damaged: line {number}: {what}") from None
    if weight != 1:
        raise SignalError(
            f"line {number}: a vertex of weight {weight:g} (v x y z w), which programs read differently",
            allowed="a weight of 1",
            do="export it without weights",
        )
    return x, y, z


def indices(words: list[bytes], number: int, num_vertices: int) -> list[int]:
    """Vertices of a face, counted from 0; those out of bounds stay so.

    Args:
        words: ``f`` and a corner ``vertex/texture/normal`` each, of which the last two may be missing.
        number: Number of the line, for messages.
        num_vertices: Number of vertices before it.
    """
    try:
        signed = [int(word.partition(b"/")[0]) for word in words[1:]]
    except ValueError:
        wrong = next(word for word in words[1:] if not word.partition(b"/")[0].lstrip(b"+-").isdigit())
        raise SignalError(f"damaged: line {number}: {printable(wrong[:40])!r} is no corner of a face") from None
    if 0 in signed or (signed and min(signed) < -num_vertices):
        raise SignalError(
            f"damaged: line {number}: vertex {min(signed, key=abs) if 0 in signed else min(signed)} is out of bounds",
            allowed=f"from 1, or from -{num_vertices} to -1 for the vertices before it",
        )
    return [index - 1 if index > 0 else num_vertices + index for index in signed]
