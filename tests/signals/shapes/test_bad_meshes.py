"""Damaged, hostile and odd mesh files: each is used rightly or refused for a stated reason."""

import copy
import json
import struct

import numpy as np
import pytest
import trimesh

from wsrl.errors import SignalError
from wsrl.signals.listing import MESH_TYPES
from wsrl.signals.shapes.mesh import MeshLimits, read_mesh
from wsrl.signals.shapes.shape import ShapeOptions, prepare_shape
from wsrl.signals.shapes.solid import MeshSolid

FEW = {"num_near": 50, "num_uniform": 50, "num_surface": 50, "num_heldout": 50}
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.uint32)
SCENE = {
    "asset": {"version": "2.0"},
    "buffers": [{"byteLength": 96}],
    "bufferViews": [{"buffer": 0, "byteLength": 48}, {"buffer": 0, "byteOffset": 48, "byteLength": 48}],
    "accessors": [
        {"bufferView": 0, "count": 4, "componentType": 5126, "type": "VEC3"},
        {"bufferView": 1, "count": 12, "componentType": 5125, "type": "SCALAR"},
    ],
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
    "nodes": [{"mesh": 0}],
    "scenes": [{"nodes": [0]}],
    "scene": 0,
}


def box_file(file_type):
    data = trimesh.creation.box().export(file_type=file_type)
    return data.encode() if isinstance(data, str) else data


def glb(scene, corners=CORNERS, faces=TETRAHEDRON):
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    buffer = corners.tobytes() + faces.tobytes()
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def changed(**changes):
    """The scene with some of its entries replaced; ``accessor_0_count=5`` reaches into its lists."""
    scene = copy.deepcopy(SCENE)
    for key, value in changes.items():
        *path, last = key.split("_")
        place = scene
        for step in path:
            place = place[int(step)] if step.isdigit() else place[step]
        place[int(last) if last.isdigit() else last] = value
    return scene


@pytest.mark.parametrize("file_type", ["obj", "ply", "stl", "off", "glb"])
def test_every_kind_is_read(file_type):
    solid = MeshSolid(read_mesh(box_file(file_type), file_type))
    assert solid.verdict == "used"
    assert solid.quality["num_faces"] == 12
    assert solid.signed_distance(np.zeros((1, 3))) == pytest.approx(-0.9 / np.sqrt(3), abs=1e-5)


@pytest.mark.parametrize("file_type", MESH_TYPES)
@pytest.mark.parametrize(
    "data", [b"", b"\0" * 200, bytes(range(256)) * 4, b"no mesh\n" * 40], ids=["empty", "zeros", "bytes", "text"]
)
def test_junk_is_refused(file_type, data):
    with pytest.raises(SignalError, match=r"^it\.x: (the file is empty|damaged|not a GLB|it holds no faces)"):
        read_mesh(data, file_type, name="it.x")


@pytest.mark.parametrize("file_type", ["obj", "ply", "stl", "off", "glb"])
def test_a_file_cut_anywhere_is_read_or_refused(file_type):
    data = box_file(file_type)
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 40)):
        try:
            MeshSolid(read_mesh(data[:length], file_type))
        except SignalError:
            refused += 1
    assert refused >= 15


@pytest.mark.parametrize(
    ("data", "file_type", "reason"),
    [
        (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "obj", "holds 3 points but no faces"),
        (trimesh.PointCloud(np.eye(3)).export(file_type="ply"), "ply", "holds 3 points but no faces"),
        (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "obj", "out of bounds"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 77\n", "off", "outside the range"),
        (
            b"ply\nformat ascii 1.0\nelement face 9000000000\nend_header\n",
            "ply",
            "announces 9,000,000,000 rows in 56 bytes",
        ),
        (b"OFF\n8 123456789 0\n", "off", "announces 123,456,797 rows"),
    ],
)
def test_what_no_mesh_can_be_made_of(data, file_type, reason):
    with pytest.raises(SignalError, match=reason):
        read_mesh(data, file_type)


def test_ten_million_faces_are_refused_by_the_size_of_the_file():
    data = bytearray(84 + 50 * 10**7)
    data[80:84] = (10**7).to_bytes(4, "little")
    with pytest.raises(SignalError, match=r"10,000,000 faces\. Allowed: at most 1,000,000 \(option max_faces\)"):
        read_mesh(data, "stl")


def test_the_limits_are_those_given():
    with pytest.raises(SignalError, match=r"12 faces\. Allowed: at most 11"):
        read_mesh(box_file("obj"), "obj", limits=MeshLimits(max_faces=11))
    with pytest.raises(SignalError, match="at most 100 bytes"):
        read_mesh(box_file("obj"), "obj", limits=MeshLimits(max_bytes=100))
    assert len(read_mesh(box_file("obj"), "obj", limits=MeshLimits(max_faces=12)).faces) == 12


def test_polygons_count_as_the_triangles_they_become():
    corners = "".join(f"v {np.cos(a)} {np.sin(a)} 0\n" for a in np.linspace(0, 6, 20))
    data = (corners + "f " + " ".join(map(str, range(1, 21))) + "\n").encode()
    with pytest.raises(SignalError, match=r"18 faces\. Allowed: at most 17"):
        read_mesh(data, "obj", limits=MeshLimits(max_faces=17))


@pytest.mark.parametrize(
    ("scene", "reason"),
    [
        (changed(accessors_0_count=10**10), "tables take 120,000,000,048 bytes"),
        (changed(accessors_0_count=10**5), "damaged"),
        (changed(accessors_0_count=-4), "a table of -4 rows"),
        (
            changed(accessors_1={"count": 3 * 10**8, "componentType": 5125, "type": "SCALAR"}),
            "tables take 1,200,000,048",
        ),
        (changed(bufferViews_0_byteLength=10**9), "damaged"),
        (changed(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]), "go round in circles"),
        (changed(nodes=[*({"children": [i + 1, i + 1]} for i in range(40)), {"mesh": 0}]), "no trees"),
        (changed(nodes=[{"mesh": 0}] * 300_000), "1,200,000 faces"),
        (changed(meshes=3), "inconsistent"),
        (changed(extensionsRequired=["KHR_draco_mesh_compression"]), "packed by KHR_draco"),
    ],
    ids=["bomb", "count", "negative", "zeros", "view", "cycle", "dag", "instances", "type", "draco"],
)
def test_hostile_scenes_are_refused(scene, reason):
    with pytest.raises(SignalError, match=reason):
        read_mesh(glb(scene), "glb")


def test_a_part_longer_than_its_file_is_refused():
    whole = glb(SCENE)
    place = whole.index(b"BIN\0") - 4
    with pytest.raises(SignalError, match=r"a part of 2,147,483,648 bytes, of which 96 are there"):
        read_mesh(whole[:place] + struct.pack("<I", 2**31) + whole[place + 4 :], "glb")


def test_a_deep_description_is_refused():
    with pytest.raises(SignalError, match="no JSON"):
        read_mesh(b"[" * 100_000, "gltf")


def test_scenes_are_flattened_with_their_transforms():
    nodes = [{"children": [1, 2], "scale": [2, 2, 2]}, {"mesh": 0, "translation": [5, 0, 0]}, {"mesh": 0}]
    mesh = read_mesh(glb(changed(nodes=nodes, scenes=[{"nodes": [0]}])), "glb")
    assert len(mesh.faces) == 8
    np.testing.assert_allclose(mesh.bounds, [[0, 0, 0], [12, 2, 2]])


def test_textures_are_never_asked_for():
    texture = {"images": [{"uri": "gone.png"}], "textures": [{"source": 0}]}
    material = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    scene = changed(**texture, materials=material)
    scene["meshes"][0]["primitives"][0]["material"] = 0
    assert len(read_mesh(glb(scene), "glb").faces) == 4
    assert len(read_mesh(b"mtllib gone.mtl\nusemtl x\n" + box_file("obj"), "obj").faces) == 12


def test_buffers_come_from_the_resolver_and_nowhere_else():
    data = json.dumps(changed(buffers_0_uri="shape.bin")).encode()
    asked = []

    def resolve(name):
        asked.append(name)
        return CORNERS.tobytes() + TETRAHEDRON.tobytes()

    assert len(read_mesh(data, "gltf", resolve).faces) == 4
    assert asked == ["shape.bin"]
    with pytest.raises(SignalError, match=r"refers to 'shape.bin', which is not there"):
        read_mesh(data, "gltf")


@pytest.mark.parametrize(
    ("faces", "reason"),
    [
        ([[0, 0, 1], [1, 1, 1]], "all its faces have no area"),
        ([[0, 1, 7], [-1, 0, 2]], "none of its 2 faces has three finite vertices"),
        (np.zeros((0, 3), int), "it has no faces, only points"),
    ],
)
def test_meshes_without_a_triangle_are_rejected_shapes(faces, reason):
    mesh = trimesh.Trimesh(CORNERS, faces, process=False, validate=False)
    shape = prepare_shape(mesh, ShapeOptions(**FEW), 0)
    assert shape.verdict == "rejected"
    assert reason in shape.reasons[0]
    assert len(shape.points) == 0


def test_bad_faces_are_dropped_and_told():
    corners = np.concatenate([CORNERS, [[np.nan, 0, 0], [np.inf, 1, 1]]])
    faces = np.concatenate([TETRAHEDRON.astype(int), [[0, 1, 4], [0, 1, 5], [0, 1, 99], [0, 0, 1], [1, 2, 3]]])
    solid = MeshSolid(trimesh.Trimesh(corners, faces, process=False))
    assert solid.verdict == "repaired"
    assert set(solid.reasons) == {
        "dropped 1 faces with indices out of range",
        "dropped 2 faces with NaN or infinite vertices",
        "dropped 1 faces without area",
        "dropped 1 doubled faces",
    }
    assert solid.signed_distance(np.zeros((1, 3))) < 0.9


def test_all_vertices_at_one_point_are_told():
    with pytest.raises(SignalError, match="all its vertices are one point"):
        MeshSolid(trimesh.Trimesh(np.ones((3, 3)), [[0, 1, 2]], process=False))


def test_numbers_beyond_double_precision_are_told():
    with pytest.raises(SignalError, match="too far apart"):
        MeshSolid(trimesh.Trimesh(CORNERS.astype(float) * 1e200, TETRAHEDRON, process=False))
