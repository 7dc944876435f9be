"""glTF: every form of table, transform and extension that changes geometry is applied, or refused by its name."""

import base64
import json
import struct

import numpy as np
import pytest

from wsrl.errors import SignalError
from wsrl.signals.shapes.mesh import MeshLimits, read_mesh
from wsrl.signals.shapes.mesh_files import mesh_content
from wsrl.signals.shapes.solid import MeshSolid

CORNERS = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], "<f4")
QUADS = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
TRIANGLES = QUADS[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
FACES = TRIANGLES.astype("<u4")
KINDS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
WIDTHS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Scene:
    """A glTF file in the making: the box as mesh 0, and one node."""

    def __init__(self, corners=CORNERS, faces=FACES, **accessor):
        self.data, self.views, self.accessors = b"", [], []
        self.primitive = {"attributes": {"POSITION": self.table(corners, **accessor)}}
        if faces is not None:
            self.primitive["indices"] = self.table(faces.reshape(-1, 1))
        self.meshes = [{"primitives": [self.primitive]}]
        self.nodes, self.more = [{"mesh": 0}], {}

    def view(self, data, **more):
        self.data += bytes(-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += data
        return len(self.views) - 1

    def table(self, values, stride=0, offset=0, **more):
        rows = [row.tobytes().ljust(stride, b"\xff") for row in np.atleast_2d(values)]
        view = self.view(b"\xfe" * offset + b"".join(rows), **({"byteStride": stride} if stride else {}))
        self.accessors.append(
            {
                "bufferView": view,
                "byteOffset": offset,
                "componentType": KINDS[values.dtype.str[1:]],
                "count": len(rows),
                "type": WIDTHS[np.atleast_2d(values).shape[1]],
                **more,
            }
        )
        return len(self.accessors) - 1

    def described(self, **buffer):
        scene = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(self.data), **buffer}]}
        scene |= {"bufferViews": self.views, "accessors": self.accessors, "meshes": self.meshes, "nodes": self.nodes}
        return scene | {"scenes": [{"nodes": [0]}], "scene": 0} | self.more

    def glb(self, **buffer):
        text = json.dumps(self.described(**buffer)).encode()
        text += b" " * (-len(text) % 4)
        data = self.data + bytes(-len(self.data) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks

    def read(self):
        return read_mesh(self.glb(), "glb")


def check(mesh, low=(0, 0, 0), high=(1, 1, 1), volume=1.0, parts=1):
    np.testing.assert_allclose(mesh.bounds, [low, high], atol=1e-6)
    assert mesh.volume == pytest.approx(volume, rel=1e-5)
    solid = MeshSolid(mesh)
    assert solid.verdict == "used" and solid.quality["num_parts"] == parts


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize("normalized", [True, False])
def test_quantised_positions(kind, normalized):
    """KhronosGroup/glTF KHR_mesh_quantization, assimp/assimp#6765: shares of the largest value."""
    top = np.iinfo(kind).max
    scene = Scene((CORNERS * top).astype("<" + kind), stride=8, normalized=normalized)
    scene.more = {"extensionsRequired": ["KHR_mesh_quantization"], "extensionsUsed": ["KHR_mesh_quantization"]}
    scene.nodes = [
        {"children": [1, 2]},
        {"mesh": 0},
        {"mesh": 0, "translation": [3 * (1 if normalized else top), 0, 0]},
    ]
    size = 1 if normalized else top
    check(scene.read(), high=(4 * size, size, size), volume=2 * float(size) ** 3, parts=2)


@pytest.mark.parametrize("kind", ["i1", "i2"])
def test_negative_normalized_values(kind):
    """KhronosGroup/glTF KHR_mesh_quantization: the lowest value, too, is -1."""
    limits = np.iinfo(kind)
    scene = Scene(np.where(CORNERS > 0, limits.max, limits.min).astype("<" + kind), stride=8, normalized=True)
    check(scene.read(), low=(-1, -1, -1), volume=8)


@pytest.mark.parametrize("required", [True, False])
def test_instances(required):
    """BabylonJS/Babylon.js#8149: the mesh is shown once a row, below the transform of its node."""
    scene = Scene()
    attributes = {"TRANSLATION": scene.table(np.array([[0, 0, 0], [3, 0, 0], [6, 0, 0]], "<f4"))}
    half = np.array([[0, 0, 0, 127], [0, 0, 90, 90], [0, 0, 0, -127]], "<i1")
    attributes["ROTATION"] = scene.table(half, normalized=True)
    attributes["SCALE"] = scene.table(np.array([[1, 1, 1], [1, 1, 1], [1, 2, 1]], "<f4"))
    scene.nodes = [
        {"mesh": 0, "scale": [2, 2, 2], "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}
    ]
    scene.more = {"extensionsUsed": ["EXT_mesh_gpu_instancing"]}
    scene.more |= {"extensionsRequired": ["EXT_mesh_gpu_instancing"]} if required else {}
    check(scene.read(), high=(14, 4, 2), volume=8 * 4, parts=3)


def test_instances_count_as_faces():
    scene = Scene()
    attributes = {"TRANSLATION": scene.table(np.zeros((2000, 3), "<f4"))}
    scene.nodes[0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    with pytest.raises(SignalError, match="24,000 faces"):
        read_mesh(scene.glb(), "glb", limits=MeshLimits(max_faces=23_999))


@pytest.mark.parametrize("stride", [0, 12, 20])
@pytest.mark.parametrize("offset", [0, 4])
def test_strides_and_offsets(stride, offset):
    """mikedh/trimesh#1720, for glTF: rows may lie apart."""
    check(Scene(stride=stride, offset=offset).read())


@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_kinds_of_indices(kind):
    check(Scene(faces=TRIANGLES.astype("<" + kind)).read())


def test_without_indices_vertices_follow_each_other():
    check(Scene(CORNERS[TRIANGLES].reshape(-1, 3), None).read())


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_sparse_tables(filled, kind):
    """KhronosGroup/glTF section 3.6.2.3: some rows are replaced, in what is there or in zeros."""
    scene = Scene(np.where(CORNERS[:, :1] > 0, 7, CORNERS).astype("<f4"))
    accessor, rows = scene.accessors[0], np.flatnonzero(CORNERS.any(axis=1) if not filled else CORNERS[:, 0] > 0)
    if not filled:
        del accessor["bufferView"], accessor["byteOffset"]
    index = {"bufferView": scene.view(rows.astype("<" + kind).tobytes()), "componentType": KINDS[kind]}
    values = {"bufferView": scene.view(CORNERS[rows].tobytes())}
    accessor["sparse"] = {"count": len(rows), "indices": index, "values": values}
    check(scene.read())


def test_strips_and_fans():
    """mikedh/trimesh#1720, for glTF: modes 5 and 6, with indices and without."""
    for mode, order in ((5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])):
        scene = Scene()
        quads = QUADS[:, order]
        scene.meshes = [
            {
                "primitives": [
                    {
                        "attributes": {"POSITION": 0},
                        "indices": scene.table(quad.reshape(-1, 1).astype("<u2")),
                        "mode": mode,
                    }
                    for quad in quads[:3]
                ]
                + [{"attributes": {"POSITION": scene.table(CORNERS[quad])}, "mode": mode} for quad in quads[3:]]
            }
        ]
        check(scene.read())


@pytest.mark.parametrize(("mode", "order"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_strips_that_begin_anew(mode, order, kind):
    """KhronosGroup/glTF EXT_mesh_primitive_restart."""
    stop = np.full((6, 1), np.iinfo(kind).max)
    scene = Scene(faces=np.concatenate([QUADS[:, order], stop], axis=1).astype("<" + kind))
    scene.primitive["mode"] = mode
    scene.more = {"extensionsRequired": ["EXT_mesh_primitive_restart"]}
    check(scene.read())


def test_morph_targets_and_their_weights():
    """mrdoob/three.js#12551: the weights of the node go before those of the mesh; targets may be normalized."""
    scene = Scene()
    first, second = np.zeros_like(CORNERS), np.zeros((8, 3), "<i1")
    first[:, 0], second[:, 1] = CORNERS[:, 0], CORNERS[:, 1] * 127
    padded = scene.table(second, stride=4, normalized=True)
    scene.primitive["targets"] = [{"POSITION": scene.table(first)}, {"POSITION": padded}, {"NORMAL": 0}]
    scene.meshes[0]["weights"] = [2.0, 1.0, 0.5]
    check(scene.read(), high=(3, 2, 1), volume=6)
    scene.nodes[0]["weights"] = [0.0, 0.5, 0]
    check(scene.read(), high=(1, 1.5, 1), volume=1.5)


@pytest.mark.parametrize("kind", ["f4", "u1", "u2"])
def test_skins(kind):
    """KhronosGroup/glTF section 3.7.3: the joints place the mesh, its own node does not."""
    scene = Scene()
    joints = scene.table(np.where(CORNERS[:, :1] > 0, [1, 0, 0, 0], [0, 1, 0, 0]).astype("u1"))
    weights = np.tile([1.0, 0, 0, 0], (8, 1)) * (1 if kind == "f4" else np.iinfo(kind).max)
    weights = scene.table(weights.astype("<" + kind), normalized=kind != "f4")
    scene.primitive["attributes"] |= {"JOINTS_0": joints, "WEIGHTS_0": weights}
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[:, 3, 0] = -10  # columns first: moved by -10 along x
    inverse = scene.table(bind.reshape(2, 16).astype("<f4"))
    scene.more = {"skins": [{"joints": [1, 2], "inverseBindMatrices": inverse}], "scenes": [{"nodes": [0, 3]}]}
    scene.nodes = [{"mesh": 0, "skin": 0, "translation": [99, 0, 0]}, {"translation": [10, 0, 0]}]
    scene.nodes += [{"translation": [12, 0, 0]}, {"children": [1, 2], "scale": [1, 2, 1]}]
    check(scene.read(), high=(3, 2, 1), volume=6)


def test_matrices_scales_and_mirrors():
    """KhronosGroup/glTF section 3.7.4: a mirror turns the triangles, so that a void stays one."""
    scene = Scene()
    matrix = np.diag([-2.0, 3, 4, 1])
    matrix[:3, 3] = [2, 0, 0]
    scene.nodes = [{"mesh": 0, "matrix": matrix.T.ravel().tolist()}]
    check(scene.read(), high=(2, 3, 4), volume=24)
    half = float(np.sqrt(0.5))
    scene.nodes = [{"children": [1], "rotation": [0, 0, half, half]}, {"mesh": 0, "scale": [2, 1, -1]}]
    check(scene.read(), low=(-1, 0, -1), high=(0, 2, 0), volume=2)


def test_what_a_scene_shows():
    """KhronosGroup/glTF section 3.5.1: one scene is shown; KHR_node_visibility hides nodes with all below them."""
    scene = Scene()
    scene.nodes = [
        {"mesh": 0},
        {"mesh": 0, "translation": [5, 0, 0]},
        {"children": [3]},
        {"mesh": 0, "scale": [9, 9, 9]},
    ]
    scene.more = {"scenes": [{"nodes": [0]}, {"nodes": [0, 1, 2]}], "scene": 1}
    hidden = {"KHR_node_visibility": {"visible": False}}
    scene.nodes[2]["extensions"] = hidden
    check(scene.read(), high=(6, 1, 1), volume=2, parts=2)
    scene.more["scene"] = 0
    check(scene.read())
    scene.nodes, scene.more = [], {"scenes": []}
    check(scene.read())


def test_buffers_in_the_text_and_beside_it(tmp_path):
    """KhronosGroup/glTF section 3.6.1: base64, percent signs, files; a GLB file may have files too."""
    scene = Scene()
    encoded = base64.b64encode(scene.data).decode()
    for head in ("data:application/octet-stream;base64,", "data:;base64,", "data:application/gltf-buffer;base64,"):
        check(read_mesh(json.dumps(scene.described(uri=head + encoded)).encode(), "gltf"))
        check(read_mesh(json.dumps(scene.described(uri=head + encoded.rstrip("="))).encode("utf-8-sig"), "gltf"))
    quoted = "data:application/octet-stream," + "".join(f"%{byte:02X}" for byte in scene.data)
    check(read_mesh(json.dumps(scene.described(uri=quoted)).encode(), "gltf"))
    (tmp_path / "a b.bin").write_bytes(scene.data + b"more")
    (tmp_path / "x.gltf").write_text(json.dumps(scene.described(uri="a%20b.bin")))
    (tmp_path / "y.GLB").write_bytes(scene.glb(uri="a%20b.bin"))
    for name in ("x.gltf", "y.GLB"):
        check(mesh_content(tmp_path, name, MeshLimits()).make())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "packed by KHR_draco_mesh_compression"),
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "packed by EXT_meshopt_compression"),
        ({"extensionsRequired": ["VND_curved_space"]}, "requires the extension VND_curved_space, which is not read"),
        ({"asset": {"version": "1.0"}}, "a description of glTF 1.0.*Allowed: glTF 2.0"),
        ({"asset": {"version": "3.0"}}, "a description of glTF 3.0"),
        ({"meshes": {"a": {}}}, "a description of glTF 1.0"),
        ({"scene": 4}, "it shows scene 4 of 1"),
    ],
)
def test_what_is_not_read_is_named(change, reason):
    """BabylonJS/Babylon.js#8149, zeux/meshoptimizer#685: by the extension's or the version's name."""
    scene = Scene()
    scene.more = change
    with pytest.raises(SignalError, match=reason):
        scene.read()


@pytest.mark.parametrize(
    "name", ["KHR_materials_unlit", "KHR_texture_transform", "KHR_texture_basisu", "EXT_texture_webp"]
)
def test_extensions_of_looks_change_nothing(name):
    scene = Scene()
    scene.more = {"extensionsRequired": [name], "extensionsUsed": [name]}
    check(scene.read())


def test_packed_tables_that_are_not_required_are_read_where_they_are_filled():
    """zeux/meshoptimizer#685: else the extension is named, never 'damaged'."""
    scene = Scene()
    scene.primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    scene.views[0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0, "count": 8, "mode": "ATTRIBUTES"}}
    check(scene.read())
    with pytest.raises(SignalError, match="packed by EXT_meshopt_compression"):
        read_mesh(scene.glb(extensions={"EXT_meshopt_compression": {"fallback": True}}), "glb")
    del scene.views[0]["extensions"], scene.accessors[0]["bufferView"]
    with pytest.raises(SignalError, match="packed by KHR_draco_mesh_compression"):
        scene.read()


def test_lines_and_points_are_named():
    """mikedh/trimesh#1720: a drawing is no damaged mesh; beside a mesh it is passed over."""
    for mode, name in ((0, "points"), (1, "lines"), (2, "lines"), (3, "lines")):
        scene = Scene()
        scene.primitive["mode"] = mode
        with pytest.raises(SignalError, match=f"it holds 1 {name} but no faces"):
            scene.read()
        scene.meshes[0]["primitives"].append({**scene.primitive, "mode": 4})
        check(scene.read())


def test_a_first_version_in_binary_is_named():
    with pytest.raises(SignalError, match=r"GLB file of version 1 \(glTF 1.0\).*Allowed: glTF 2.0"):
        read_mesh(b"glTF" + struct.pack("<IIII", 1, 40, 20, 0) + b" " * 24, "glb")
