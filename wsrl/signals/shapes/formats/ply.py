"""Stanford PLY: text or binary of either byte order, faces of any size mixed, strips of triangles.

Source: G. Turk, The PLY polygon file format; the names of types are those of both its versions.
"""

import struct
from dataclasses import dataclass

import numpy as np

from wsrl.errors import SignalError, printable
from wsrl.signals.shapes.formats.polygons import Polygons, strip_triangles
from wsrl.signals.shapes.formats.words import numbers, plain

LARGEST_HEADER = 1 << 16
NAMES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
NAMES |= {"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
NAMES |= {"float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8", "long": "i8", "ulong": "u8"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
CORNERS = ("vertex_indices", "vertex_index", "vertex_indexes", "vertex_list")
AXES = ("x", "y", "z")
NO_LISTS = np.zeros(0, np.int64), np.zeros(0, np.int64)  # items, and length of each list


@dataclass(frozen=True)
class Property:
    """A column: its name, the type of its items, and of the number before them where it is a list."""

    name: str
    kind: str
    counted: str | None = None


@dataclass(frozen=True)
class Element:
    """A table: its name, number of rows and columns."""

    name: str
    rows: int
    properties: list[Property]

    def fixed(self, order: str) -> np.dtype | None:
        """Type of a row where all have the same length, else None."""
        if any(column.counted for column in self.properties):
            return None
        return np.dtype([(f"{index}", order + column.kind) for index, column in enumerate(self.properties)])

    def column(self, *names: str) -> int | None:
        """Index of the first column of one of the names, which are in lower case."""
        for index, column in enumerate(self.properties):
            if column.name.lower() in names:
                return index
        return None

    def lists(self) -> int | None:
        """Place of the list of corners: the one of a usual name, or the only list."""
        listed = [index for index, column in enumerate(self.properties) if column.counted]
        named = self.column(*CORNERS)
        return named if named in listed else listed[0] if len(listed) == 1 else None


def read_ply(data: bytes) -> Polygons:
    """Vertices and faces of the content of a file.

    Raises:
        SignalError: It is damaged, or its vertices or faces are not where PLY has them.
    """
    # the header says which tables follow
    data = plain(data)
    order, elements, body = header(data)
    reader = Binary(data, body, order) if order else Text(data[body:])
    vertices = np.zeros((0, 3))
    faces = strips = NO_LISTS
    others = {}
    # each table in its order, also those that are only passed over
    for element in elements:
        name = element.name.lower()
        if name == "vertex":
            columns = [element.column(axis) for axis in AXES]
            if None in columns:
                raise SignalError("its vertices have no x, y and z")
            vertices = reader.table(element, columns)
        elif name in ("face", "tristrips"):
            listed = element.lists()
            if listed is None and element.rows:
                raise SignalError(f"its {name} table has no list of corners", allowed=" or ".join(CORNERS[:2]))
            polygons = reader.ragged(element, listed)
            faces, strips = (polygons, strips) if name == "face" else (faces, polygons)
        else:
            others |= {"lines": element.rows} if name == "edge" else {}
            reader.ragged(element, None)
    # strips as triangles behind the faces
    corners, sizes = faces
    if len(strips[1]):
        triangles = of_strips(*strips)
        corners = np.concatenate([corners, triangles.ravel()])
        sizes = np.concatenate([sizes, np.full(len(triangles), 3)])
    return Polygons(vertices=vertices, corners=corners, sizes=sizes, others=others)


def header(data: bytes) -> tuple[str, list[Element], int]:
    """Byte order (empty for text), tables, and where the rows begin."""
    # lines end as the first one does
    start = data[:LARGEST_HEADER]
    first = start.split(b"\n")[0]
    end_of_line = b"\r" if b"\r" in first.rstrip(b"\r") else b"\r\n" if first.endswith(b"\r") else b"\n"
    # statements until the end; comments and unknown ones say nothing of the rows
    order, elements, position = None, [], 0
    for line in start.split(end_of_line):
        position += len(line) + len(end_of_line)
        words = line.decode("latin-1").split()
        if position == len(line) + len(end_of_line) and words[:1] != ["ply"]:
            break
        if words[:1] == ["format"] and len(words) > 1:
            order = ORDERS.get(words[1])
        elif words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            elements.append(Element(words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1].properties.append(column_of(words[1:]))
        elif words[:1] == ["end_header"] and order is not None:
            return order, elements, position
    raise SignalError("damaged: it has no PLY header" if order is None else "damaged: its header does not end")


def column_of(words: list[str]) -> Property:
    """A column as the header has it: ``TYPE NAME``, or ``list TYPE TYPE NAME``."""
    listed = words[:1] == ["list"]
    kinds, name = words[1 if listed else 0 : -1], words[-1] if words else ""
    if len(kinds) != 1 + listed or not all(kind in NAMES for kind in kinds):
        raise SignalError(f"damaged: a property {printable(' '.join(words))!r}", allowed=f"types {', '.join(NAMES)}")
    return Property(name, NAMES[kinds[-1]], NAMES[kinds[0]] if listed else None)


class Binary:
    """Rows in binary, read table by table.

    Args:
        data: Content of the file.
        position: Where the rows begin.
        order: Byte order.
    """

    def __init__(self, data: bytes, position: int, order: str):
        self._data, self._position, self._order = data, position, order

    def table(self, element: Element, columns: list[int]) -> np.ndarray:
        """Columns of a table ``(rows, columns)``, float64.

        Args:
            element: The table.
            columns: Places of columns that are no lists.
        """
        row = element.fixed(self._order)
        if row is None:
            raise SignalError("its vertices have lists as properties", do="export them without")
        self._need(element, element.rows * row.itemsize)
        table = np.frombuffer(self._data, row, element.rows, self._position)
        self._position += element.rows * row.itemsize
        return np.stack([table[str(column)].astype(np.float64) for column in columns], axis=1)

    def ragged(self, element: Element, listed: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Items and lengths of a list; all else in the table is passed over.

        Args:
            element: The table.
            listed: Place of the list; None for none.
        """
        row = element.fixed(self._order)
        if row is not None:
            self._need(element, element.rows * row.itemsize)
            self._position += element.rows * row.itemsize
            return NO_LISTS
        same = self._same(element, listed)
        if same is not None:
            return same
        # each column: how the length of a list is read, or None, and the bytes of an item
        lengths = [
            column.counted and struct.Struct(self._order + np.dtype(column.counted).char)
            for column in element.properties
        ]
        widths = [np.dtype(column.kind).itemsize for column in element.properties]
        # walk through the rows, noting where each list begins
        starts, sizes = [], []
        position, data = self._position, self._data
        for _ in range(element.rows):
            for number, length in enumerate(lengths):
                if length is None:
                    position += widths[number]
                    continue
                if position + length.size > len(data):
                    raise SignalError(f"damaged: it ends within its {element.name} table")
                size = int(length.unpack_from(data, position)[0])
                position += length.size
                if number == listed:
                    starts.append(position)
                    sizes.append(size)
                if size < 0 or position + size * widths[number] > len(data):
                    raise SignalError(f"damaged: a list of {size} items in its {element.name} table")
                position += size * widths[number]
        self._position = position
        if listed is None:
            return NO_LISTS
        return self._gather(np.array(starts), np.array(sizes, np.int64), element.properties[listed].kind)

    def _same(self, element: Element, listed: int | None) -> tuple[np.ndarray, np.ndarray] | None:
        """As ``ragged`` where every row is as long as the first, at once; None where they differ."""
        # type of the first row, whose lists say their lengths
        columns, position = [], self._position
        for number, column in enumerate(element.properties):
            if column.counted:
                kind = np.dtype(self._order + column.counted)
                if position + kind.itemsize > len(self._data):
                    return None
                size = int(np.frombuffer(self._data, kind, 1, position)[0])
                columns += [(f"{number}n", kind), (f"{number}", self._order + column.kind, (max(size, 0),))]
                position += kind.itemsize + max(size, 0) * np.dtype(column.kind).itemsize
            else:
                columns.append((f"{number}", self._order + column.kind))
                position += np.dtype(column.kind).itemsize
        # all rows read as of this type, if their lists have the lengths of the first row's
        row = np.dtype(columns)
        if self._position + row.itemsize * element.rows > len(self._data):
            return None
        table = np.frombuffer(self._data, row, element.rows, self._position)
        lengths = [name for name in row.names if name.endswith("n")]
        if any((table[name] != row[name[:-1]].shape[0]).any() for name in lengths):
            return None
        self._position += row.itemsize * element.rows
        if listed is None:
            return NO_LISTS
        items = table[f"{listed}"].astype(np.int64)
        return items.ravel(), np.full(element.rows, items.shape[1], np.int64)

    def _gather(self, starts: np.ndarray, sizes: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Items that lie in runs of bytes."""
        # address of each item, then its bytes side by side
        width = np.dtype(kind).itemsize
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = np.repeat(starts, sizes).astype(np.int64) + within * width
        raw = np.frombuffer(self._data, np.uint8)[first[:, None] + np.arange(width)]
        return np.ascontiguousarray(raw).view(self._order + kind).ravel().astype(np.int64), sizes

    def _need(self, element: Element, size: int) -> None:
        if self._position + size > len(self._data):
            raise SignalError(f"damaged: it ends within its {element.name} table")


class Text:
    """Rows as words, read table by table, whatever the line breaks.

    Args:
        data: What follows the header.
    """

    def __init__(self, data: bytes):
        self._words, self._position = data.split(), 0

    def table(self, element: Element, columns: list[int]) -> np.ndarray:
        """See ``Binary.table``."""
        if element.fixed("<") is None:
            raise SignalError("its vertices have lists as properties", do="export them without")
        width = len(element.properties)
        words = self._take(element, element.rows * width)
        return np.stack([np.array(numbers(words[column::width], "a vertex")) for column in columns], axis=1)

    def ragged(self, element: Element, listed: int | None) -> tuple[np.ndarray, np.ndarray]:
        """See ``Binary.ragged``."""
        if element.fixed("<") is not None:
            self._take(element, element.rows * len(element.properties))
            return NO_LISTS
        # a list is its length and as many words, any other property one word
        items: list[bytes] = []
        sizes = []
        for _ in range(element.rows):
            for number, column in enumerate(element.properties):
                size = int(self._take(element, 1)[0]) if column.counted else 1
                words = self._take(element, size)
                if number == listed:
                    items += words
                    sizes.append(size)
        return np.array(list(map(int, items)), np.int64), np.array(sizes, np.int64)

    def _take(self, element: Element, num: int) -> list[bytes]:
        words = self._words[self._position : self._position + num] if num >= 0 else []
        if len(words) != num:
            raise SignalError(f"damaged: it ends within its {element.name} table")
        self._position += num
        return words


def of_strips(items: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Triangles ``(F, 3)`` of lists of strips that -1 separates, ``sizes`` items each."""
    # each list divided at its separators
    lists = np.split(items, np.cumsum(sizes)[:-1])
    runs = [run for strips in lists for run in np.split(strips, np.flatnonzero(strips < 0) + 1)]
    return np.concatenate([strip_triangles(run[run >= 0]) for run in runs])
