"""PLY of text and of either byte order, with faces, columns and tables of every kind: the same box."""

import struct

import numpy as np
import pytest

from wsrl.errors import SignalError
from wsrl.signals.shapes.mesh import read_mesh
from wsrl.signals.shapes.solid import MeshSolid

CORNERS = [(x, y, z) for x in (0, 2) for y in (0, 3) for z in (0, 4)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
MIXED = [triangle for a, b, c, d in QUADS[:3] for triangle in ((a, b, c), (a, c, d))] + QUADS[3:]
CODES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}
CODES |= {"int32": "i", "uint8": "B", "float32": "f", "float64": "d"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def ply(form, tables, end="\n", comments=()):
    """A PLY file of tables ``(name, columns, rows)``; a column is ``TYPE NAME`` or ``list TYPE TYPE NAME``."""
    order, head, body = ORDERS[form], ["ply", f"format {form} 1.0", *comments], b""
    for name, columns, rows in tables:
        head += [f"element {name} {len(rows)}", *(f"property {column}" for column in columns)]
        for row in rows:
            if not order:
                words = [str(w) for c, v in zip(columns, row) for w in ((len(v), *v) if c.startswith("list") else (v,))]
                body += " ".join(words).encode() + end.encode()
                continue
            for column, value in zip(columns, row):
                kinds = [CODES[kind] for kind in column.split()[:-1] if kind != "list"]
                body += struct.pack(order + kinds[0], len(value)) if len(kinds) == 2 else b""
                values = value if len(kinds) == 2 else (value,)
                body += struct.pack(f"{order}{len(values)}{kinds[-1]}", *values)
    return end.join([*head, "end_header", ""]).encode() + body


XYZ = ["float x", "float y", "float z"]
FACES = [(face,) for face in QUADS]
CASES = {
    "quads": [("vertex", XYZ, CORNERS), ("face", ["list uchar int vertex_indices"], FACES)],
    "mixed": [("vertex", XYZ, CORNERS), ("face", ["list uchar int vertex_indices"], [(face,) for face in MIXED])],
    "index": [("vertex", XYZ, CORNERS), ("face", ["list uint8 uint vertex_index"], FACES)],
    "types": [
        ("vertex", ["double x", "float64 y", "short z"], CORNERS),
        ("face", ["list int ushort vertex_indices"], FACES),
    ],
    "more columns": [
        (
            "vertex",
            ["uchar red", "float nx", "float z", "float y", "float x"],
            [(255, 0.5, z, y, x) for x, y, z in CORNERS],
        ),
        (
            "face",
            ["uchar red", "list uchar float texcoord", "list uchar int vertex_indices", "int flags"],
            [(1, [0.5] * (2 * number), face, 7) for number, face in enumerate(MIXED)],
        ),
    ],
    "more tables": [
        ("camera", ["float view", "list uchar float more"], [(1.0, [2.0, 3.0]), (2.0, [])]),
        ("vertex", XYZ, CORNERS),
        ("edge", ["int vertex1", "int vertex2"], [(0, 1), (2, 3)]),
        ("face", ["list uchar int vertex_indices"], FACES),
        ("material", ["uchar red"], [(3,)]),
    ],
    "faces first": [("face", ["list uchar int vertex_indices"], FACES), ("vertex", XYZ, CORNERS)],
    "one quad less": [
        ("vertex", XYZ, CORNERS),
        ("face", ["list uchar int vertex_indices"], FACES[:-1]),
        ("tristrips", ["list int int vertex_indices"], [([1, 5, 3, 7, -1, 0, 0, 1],)]),
    ],
}


@pytest.mark.parametrize("form", ORDERS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", CASES)
def test_ply_in_every_form(name, end, form):
    """mikedh/trimesh#1720: quads and triangles mixed, and all else that PLY allows."""
    data = ply(form, CASES[name], end, ["comment element face 12", "obj_info made by hand"])
    mesh = read_mesh(data, "ply")
    assert mesh.volume == pytest.approx(24)
    np.testing.assert_allclose(mesh.bounds, [[0, 0, 0], [2, 3, 4]])
    assert MeshSolid(mesh).quality["watertight"] == 1


@pytest.mark.parametrize("form", ORDERS)
def test_a_byte_that_looks_like_an_end_of_line_is_one_of_the_data(form):
    """mikedh/trimesh#1720: the first byte of the rows may be that of a line break."""
    tables = [("vertex", ["uchar id", *XYZ], [(10, *place) for place in CORNERS]), CASES["quads"][1]]
    for end in ("\n", "\r\n", "\r"):
        assert read_mesh(ply(form, tables, end), "ply").volume == pytest.approx(24)


@pytest.mark.parametrize("form", ORDERS)
def test_faces_that_are_not_convex(form):
    """mikedh/trimesh#2560, for PLY."""
    outline = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]
    sides = [(k, (k + 1) % 6, (k + 1) % 6 + 6, k + 6) for k in range(6)]
    faces = [((5, 4, 3, 2, 1, 0),), ((6, 7, 8, 9, 10, 11),), *((side,) for side in sides)]
    tables = [("vertex", XYZ, [(x, y, z) for z in (0, 1) for x, y in outline])]
    mesh = read_mesh(ply(form, [*tables, ("face", ["list uchar int vertex_indices"], faces)]), "ply")
    assert mesh.volume == pytest.approx(5) and mesh.area == pytest.approx(22)


@pytest.mark.parametrize("form", ORDERS)
@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ([("vertex", XYZ, CORNERS)], "it holds 8 points but no faces"),
        ([("vertex", XYZ, CORNERS), ("edge", ["int vertex1"], [(1,)])], "8 points and 1 lines but no faces"),
        ([("vertex", XYZ[:2], [(0, 0)]), CASES["quads"][1]], "its vertices have no x, y and z"),
        ([("vertex", XYZ, CORNERS), ("face", ["int a", "int b"], [(0, 1)])], "its face table has no list of corners"),
    ],
)
def test_ply_that_is_not_read_is_named(tables, reason, form):
    """mikedh/trimesh#1720: what is wrong is said."""
    with pytest.raises(SignalError, match=reason):
        read_mesh(ply(form, tables), "ply")


@pytest.mark.parametrize("form", ORDERS)
@pytest.mark.parametrize("name", ["quads", "mixed"])
def test_a_file_that_is_cut_is_refused(name, form):
    data = ply(form, CASES[name])
    start = data.index(b"end_header") + 20
    for length in range(start, len(data) - 2, 7):
        with pytest.raises(SignalError, match="damaged"):
            read_mesh(data[:length], "ply")


def test_corners_out_of_range_are_told_by_the_solid():
    """mikedh/trimesh#1720: one bad face is dropped with a word, as before."""
    tables = [CASES["quads"][0], ("face", ["list uchar int vertex_indices"], [*FACES, ((0, 1, 2, 99),)])]
    solid = MeshSolid(read_mesh(ply("ascii", tables), "ply"))
    assert solid.reasons == ("dropped 2 faces with indices out of range",)
