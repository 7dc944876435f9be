"""Object File Format (OFF): with or without colours, normals and texture coordinates, as text.

Source: Geomview's manual, chapter OFF.
"""

import re

import numpy as np

from wsrl.errors import SignalError
from wsrl.signals.shapes.formats.polygons import Polygons
from wsrl.signals.shapes.formats.words import numbers, plain

KEYWORD = re.compile(rb"\s*(?:(st)?(c)?(n)?(4)?(n)?off)?", re.IGNORECASE)


def read_off(data: bytes) -> Polygons:
    """Vertices and faces of the content of a file.

    Raises:
        SignalError: It is damaged, binary, or not three-dimensional.
    """
    # lines without comments and empty ones
    rows = [row.partition(b"#")[0].strip() for row in plain(data).splitlines()]
    rows = [row for row in rows if row]
    # the keyword says what each vertex has; the numbers may follow it on its line
    keyword = KEYWORD.match(rows[0] if rows else b"")
    prefix, rest = keyword[0][:-3], rows[0][keyword.end() :].strip() if rows else b""
    if rest.lower().startswith(b"binary"):
        raise SignalError("a binary OFF file", allowed="OFF files of text", do="export it as text, or as PLY")
    if b"4" in prefix or (prefix.endswith(b"n") and keyword[0].endswith(b"OFF")):
        raise SignalError("vertices of four or any number of coordinates (4OFF, nOFF)", allowed="three coordinates")
    # how many vertices and faces
    rows = [rest, *rows[1:]] if rest else rows[1:]
    words = b" ".join(rows).split()
    counts = numbers(words[:2], "its numbers of vertices and faces")
    if len(counts) < 2:
        raise SignalError("damaged: it has no OFF header")
    num_vertices, num_faces = int(counts[0]), int(counts[1])
    # where there are lines enough each is a vertex or a face; else only the words count
    if len(rows[0].split()) in (2, 3) and len(rows) - 1 >= num_vertices + num_faces:
        return by_lines(rows[1:], num_vertices, num_faces)
    return by_words(words[3:], num_vertices, num_faces, 6 if b"n" in prefix.lower() else 3)


def by_lines(rows: list[bytes], num_vertices: int, num_faces: int) -> Polygons:
    """One vertex or face a line; what follows on the line is its colour or the like."""
    points = [numbers(row.split()[:3], "a vertex") for row in rows[:num_vertices]]
    if any(len(point) < 3 for point in points):
        raise SignalError("damaged: a vertex of fewer than three numbers")
    corners: list[int] = []
    sizes = []
    for row in rows[num_vertices : num_vertices + num_faces]:
        words = row.split()
        sizes.append(whole(words[0]))
        corners += map(whole, words[1 : 1 + sizes[-1]])
        if len(words) <= sizes[-1]:
            raise SignalError(f"damaged: a face of {sizes[-1]} corners, of which {len(words) - 1} are there")
    return checked(points, corners, sizes)


def by_words(words: list[bytes], num_vertices: int, num_faces: int, width: int) -> Polygons:
    """Vertices of ``width`` numbers and faces whatever the line breaks; faces have no colours then."""
    position = num_vertices * width
    points = np.array(numbers(words[:position], "a vertex")).reshape(-1, width)[:, :3]
    corners: list[int] = []
    sizes = []
    for _ in range(num_faces):
        size = whole(words[position]) if position < len(words) else len(words)
        if position + size >= len(words):
            raise SignalError(f"damaged: it ends after {len(sizes):,} of {num_faces:,} faces")
        corners += map(whole, words[position + 1 : position + 1 + size])
        sizes.append(size)
        position += 1 + size
    return checked(points, corners, sizes)


def whole(word: bytes) -> int:
    """A word as a whole number from 0."""
    try:
        number = int(word)
    except ValueError:
        raise SignalError(f"damaged: {word[:40].decode(errors='replace')!r} is no whole number in a face") from None
    if number < 0:
        raise SignalError(f"damaged: {number} in a face is outside the range", allowed="whole numbers from 0")
    return number


def checked(points: np.ndarray | list, corners: list[int], sizes: list[int]) -> Polygons:
    """The polygons of corners and sizes, whose corners are vertices."""
    vertices = np.array(points, np.float64).reshape(-1, 3)
    indices = np.array(corners, np.int64)
    if len(indices) and indices.max() >= len(vertices):
        raise SignalError(f"damaged: vertex {indices.max()} of a face is outside the range of {len(vertices)} vertices")
    return Polygons(vertices=vertices, corners=indices, sizes=np.array(sizes, np.int64))
