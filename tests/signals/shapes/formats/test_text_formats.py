"""OBJ, OFF and STL in the spellings of many programs: the same box, or what is not read by its name."""

import numpy as np
import pytest
import trimesh

from wsrl.errors import SignalError
from wsrl.signals.shapes.mesh import read_mesh
from wsrl.signals.shapes.solid import MeshSolid

CORNERS = [(x, y, z) for x in (0, 2) for y in (0, 3) for z in (0, 4)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
VOLUME = 24.0


def obj(vertex="v {} {} {}", corner="{}", join=" ", before="", end="\n", first=1):
    rows = [before] if before else []
    rows += [vertex.format(*map(float, place)) for place in CORNERS]
    rows += [join.join(["f", *(corner.format(first + index) for index in quad)]) for quad in QUADS]
    return end.join(rows) + end


def is_the_box(mesh, volume=VOLUME):
    assert mesh.volume == pytest.approx(volume) and MeshSolid(mesh).verdict == "used"
    np.testing.assert_allclose(mesh.bounds, [[0, 0, 0], [2, 3, 4]])
    return len(mesh.faces) == 12


OBJ = {
    "plain": obj(),
    "tabs": obj("v\t{}\t{}\t{}", join="\t"),
    "crlf": obj(end="\r\n"),
    "cr": obj(end="\r"),
    "spaces": obj("  v   {}  {}  {}  ", join="   "),
    "comments": obj("v {} {} {} # v", "{}", before="# f 1 2 3 \\") + "# the end",
    "comment at once": obj("v {} {} {}#v"),
    "weight": obj("v {} {} {} 1.0"),
    "colour": obj("v {} {} {} 0.5 0.25 1"),
    "alpha": obj("v {} {} {} 0.5 0.25 1 1"),
    "texture": obj(corner="{}/1", before="vt 0 0"),
    "normal": obj(corner="{}//1", before="vn 0 0 1"),
    "both": obj(corner="{0}/1/1", before="vt 0 0\nvn 0 0 1"),
    "groups": obj(before="mtllib C:\\models\\\no box\ng a b\nusemtl none\ns off\nunknown 1 2"),
    "exponents": obj("v {:e} {:E} +{:.3f}"),
    "continued": obj(join=" \\\n "),
    "continued at once": obj("v {} \\\r\n{} {}", end="\r\n"),
    "old faces": obj().replace("f ", "fo "),
    "upper case": obj().upper(),
    "relative": obj(first=-8),
    "lines too": obj() + "l 1 2 3\np 1\n",
    "faces first": "\n".join(sorted(obj().splitlines(), key=lambda row: row[0])),
}


@pytest.mark.parametrize("name", OBJ)
@pytest.mark.parametrize("encode", [str.encode, lambda s: s.encode("utf-8-sig"), lambda s: s.encode("utf-16")])
def test_obj_in_every_spelling(name, encode):
    """mikedh/trimesh#1720 and files of Blender, meshio, PowerShell: good files are no damaged ones."""
    assert is_the_box(read_mesh(encode(OBJ[name]), "obj"))


def test_relative_indices_count_from_their_own_line():
    """mikedh/trimesh#2364, mikedh/trimesh#2556: blocks of vertices, each followed by its faces; both ways mixed."""
    block = "".join(f"v {x + 5} {y} {z}\n" for x, y, z in CORNERS)
    relative = "".join("f " + " ".join(f"{index - 8}/-1/-1" for index in quad) + "\n" for quad in QUADS)
    mixed = "".join(
        "f " + " ".join(str(index - 8 if index % 2 else index + 17) for index in quad) + "\n" for quad in QUADS
    )
    far = "".join(f"v {x + 10} {y} {z}\n" for x, y, z in CORNERS)
    data = f"vt 0 0\nvn 0 0 1\n{obj(first=-8)}o b\n{block}{relative}{far}{mixed}"
    mesh = read_mesh(data.encode(), "obj")
    assert mesh.volume == pytest.approx(3 * VOLUME)
    np.testing.assert_allclose(mesh.bounds, [[0, 0, 0], [12, 3, 4]])
    assert MeshSolid(mesh).quality["num_parts"] == 3


@pytest.mark.parametrize("first", [0, 3])
def test_faces_that_are_not_convex(first):
    """mikedh/trimesh#2560, javagl/Obj#8: an L-shaped prism from any corner, whose notch stays open."""
    outline = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]
    outline = outline[first:] + outline[:first]
    rows = [f"v {x} {y} {z}" for z in (0, 1) for x, y in outline]
    rows += ["f 6 5 4 3 2 1", "f 7 8 9 10 11 12"]
    rows += [f"f {k + 1} {(k + 1) % 6 + 1} {(k + 1) % 6 + 7} {k + 7}" for k in range(6)]
    solid = MeshSolid(read_mesh("\n".join(rows).encode(), "obj"))
    inside, outside = [(0.5, 0.5, 0.5), (2.5, 0.5, 0.5), (0.5, 2.5, 0.5)], [(2, 2, 0.5), (2, 2, 0), (1.3, 1.3, 0)]
    places = (np.array(inside + outside, float) - solid.center) / solid.scale
    assert (np.sign(solid.signed_distance(places)) == [-1, -1, -1, 1, 1, 1]).all()
    assert solid.verdict == "used" and solid.mesh.volume * solid.scale**3 == pytest.approx(5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("v 0 0 0\nv 1 0 0\nl 1 2\n", "it holds 2 points and 1 lines but no faces"),
        (
            "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n",
            "line 4: vertex 0 is out of bounds.*Allowed: from 1, or from -3 to -1",
        ),
        ("v 0 0 0\nv 1 0 0\nf -1 -2 -3\nv 0 1 0\n", "line 3: vertex -3 is out of bounds"),
        ("v 0 0 0\nv 1 0,5 0\nf 1 2 1\n", "line 2: '0,5' is no number"),
        ("v 0 0\n", "line 1: a vertex of 2 numbers"),
        ("v 0 0 0\nf 1 a 1\n", "line 2: 'a' is no corner of a face"),
        ("v 0 0 0 2\n", r"line 1: a vertex of weight 2 \(v x y z w\)"),
        ("cstype bezier\ndeg 3 3\nsurf 0 1 0 1 1 2 3 4\nend\n", r"free-form surfaces \(surf\)"),
    ],
)
def test_obj_that_is_not_read_is_named(data, reason):
    """mikedh/trimesh#1720: what is wrong is said with its line."""
    with pytest.raises(SignalError, match=reason):
        read_mesh(data.encode(), "obj")


def off(head="OFF\n8 6 12", vertex="{} {} {}", face="{}", end="\n"):
    rows = [head] + [vertex.format(*map(float, place)) for place in CORNERS]
    rows += [face.format("4 " + " ".join(map(str, quad))) for quad in QUADS]
    return end.join(rows) + end


OFF = {
    "plain": off(),
    "one line": off("OFF 8 6 12"),
    "glued": off("OFF8 6 12"),
    "no edges": off("OFF\n8 6"),
    "no keyword": off("8 6 12"),
    "comments": off("# a\nOFF # b\n# c\n\n8 6 12 # d", "{} {} {} # v", "{} # f"),
    "lower case": off("off\n8 6 12"),
    "colours of faces": off(face="{} 255 0 0"),
    "one colour each": off(face="{} 0.5 0.5 0.5 1"),
    "COFF": off("COFF\n8 6 12", "{} {} {} 255 0 0 255"),
    "NOFF": off("NOFF\n8 6 0", "{} {} {} 0 0 1"),
    "CNOFF": off("CNOFF\n8 6 0", "{} {} {} 0 0 1 1 1 1 1"),
    "STOFF": off("STOFF 8 6 0", "{} {} {} 0.5 0.5"),
    "STCNOFF": off("STCNOFF 8 6 0", "{} {} {} 0 0 1 1 1 1 1 0.5 0.5"),
    "crlf": off(end="\r\n"),
    "tabs": off("OFF\n8\t6\t12").replace(" ", "\t"),
    "bom": "\ufeff" + off(),
    "one row": " ".join(off().split()),
    "broken rows": "\n".join(off().split()),
}


@pytest.mark.parametrize("name", OFF)
def test_off_in_every_spelling(name):
    """mikedh/trimesh#1720, for OFF."""
    assert is_the_box(read_mesh(OFF[name].encode(), "off"))


def test_off_that_is_not_read_is_named():
    """mikedh/trimesh#1720: binary and four-dimensional files are no damaged ones."""
    with pytest.raises(SignalError, match=r"a binary OFF file.*Allowed: OFF files of text"):
        read_mesh(b"OFF BINARY\n\0\0\0\x08\0\0\0\x06\0\0\0\0", "off")
    for head in ("4OFF\n8 6 0", "nOFF\n8 6 0"):
        with pytest.raises(SignalError, match="four or any number of coordinates"):
            read_mesh(off(head, "{} {} {} 1").encode(), "off")
    with pytest.raises(SignalError, match="a face of 4 corners, of which 3 are there"):
        read_mesh(off().rsplit(" ", 1)[0].encode(), "off")


def stl():
    text = "solid vertex 1 2 3 facet\n"
    for triangle in trimesh.creation.box(bounds=[[0, 0, 0], [2, 3, 4]]).triangles:
        text += "  facet normal 0 0 0\n    outer loop\n"
        text += "".join(f"      vertex {x:e} {y} {z}\n" for x, y, z in triangle) + "    endloop\n  endfacet\n"
    return text + "endsolid vertex 1 2 3 facet\n"


STL = {
    "plain": stl(),
    "upper case": stl().upper(),
    "mixed case": stl().replace("vertex", "Vertex").replace("facet normal", "Facet Normal"),
    "no name": stl().replace("vertex 1 2 3 facet", ""),
    "crlf": stl().replace("\n", "\r\n"),
    "tabs": stl().replace(" ", "\t").replace("\t\t", "\t"),
    "bom": "\ufeff" + stl(),
    "two solids": stl().replace("  facet", "endsolid a\nsolid b\n  facet", 3).replace("endsolid a\nsolid b\n", "", 1),
    "one row": "solid\n" + " ".join(stl().splitlines()[1:-1]),
}


@pytest.mark.parametrize("name", STL)
def test_stl_of_text_in_every_spelling(name):
    """mikedh/trimesh#1720, for STL: names may hold any word."""
    assert is_the_box(read_mesh(STL[name].encode(), "stl"))


@pytest.mark.parametrize(
    "head", [b"solid made by somebody", b"COLOR=\xff\xff\xff\xff", b"facet vertex", b"\xef\xbb\xbf"]
)
@pytest.mark.parametrize("behind", [b"", b"\0\0"])
def test_binary_stl_whatever_its_header_says(head, behind):
    """mikedh/trimesh#1720: a binary file may begin with solid."""
    whole = bytearray(trimesh.creation.box(bounds=[[0, 0, 0], [2, 3, 4]]).export(file_type="stl"))
    whole[:80] = head.ljust(80, b" ")
    assert is_the_box(read_mesh(bytes(whole) + behind, "stl"))


def test_stl_that_ends_within_a_facet_is_refused():
    with pytest.raises(SignalError, match="ends within a facet"):
        read_mesh(stl()[:-60].encode(), "stl")
