"""STL: triangles without shared vertices, binary or as text."""

import re

import numpy as np

from wsrl.errors import SignalError
from wsrl.signals.shapes.formats.polygons import Polygons
from wsrl.signals.shapes.formats.words import numbers, plain

HEADER_BYTES = 84
FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
NAME = re.compile(rb"^[ \t]*(?:end[ \t]*)?solid\b[^\r\n]*", re.IGNORECASE | re.MULTILINE)
STEP = re.compile(rb"\b(?:(endloop|endfacet)|vertex\s+(\S+)\s+(\S+)\s+(\S+))", re.IGNORECASE)


def binary_facets(data: bytes) -> int | None:
    """Number of triangles of a binary file; None where its length does not fit the number in its header.

    Args:
        data: Content of the file; the 80 bytes that it begins with may say anything, also ``solid``.
    """
    if len(data) < HEADER_BYTES:
        return None
    announced = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "little")
    behind = len(data) - HEADER_BYTES - FACET.itemsize * announced
    padded = behind > 0 and announced > 0 and b"facet" not in data[HEADER_BYTES:].lower()
    return announced if behind == 0 or padded else None


def read_stl(data: bytes) -> Polygons:
    """Triangles of the content of a file.

    Raises:
        SignalError: It is neither, or ends too early.
    """
    facets = binary_facets(data)
    # binary where the length fits; the text of a file may be in any encoding
    if facets is not None:
        corners = np.frombuffer(data, FACET, facets, HEADER_BYTES)["corners"]
        return loops(corners.reshape(-1, 3).astype(np.float64), np.full(facets, 3))
    return read_text(plain(data))


def read_text(data: bytes) -> Polygons:
    """Facets of a text, of any case and any line breaks."""
    named = NAME.sub(b"", data)  # a name may hold any word
    points: list[tuple[float, ...]] = []
    sizes, done = [], 0
    # vertices gather until the end of their loop
    for end, *coordinates in STEP.findall(named if b"vertex" in named.lower() else data):
        if not end:
            points.append(numbers(coordinates, "a vertex"))
        elif len(points) > done:  # endfacet follows endloop
            sizes.append(len(points) - done)
            done = len(points)
    if len(points) > done:
        raise SignalError("damaged: it ends within a facet")
    return loops(np.array(points, np.float64).reshape(-1, 3), np.array(sizes, np.int64))


def loops(points: np.ndarray, sizes: np.ndarray) -> Polygons:
    """Polygons whose corners ``(N, 3)`` follow each other, ``sizes (P,)`` of them each."""
    return Polygons(vertices=points, corners=np.arange(len(points)), sizes=sizes)
