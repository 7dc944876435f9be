"""glTF 2.0, text or binary: the triangles that its scene shows, at rest.

Morph targets and skins are applied as they stand in the file; animations are not played. What an extension does to the
geometry is done too, or the file is refused with the extension's name; what it says of looks is passed over.

Letters: V vertices, N corners, F triangles, J joints.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from wsrl.errors import SignalError, printable
from wsrl.signals.shapes.formats.gltf_scene import (
    INSTANCING,
    VISIBILITY,
    instances,
    joint_matrices,
    shown_nodes,
    world_matrices,
)
from wsrl.signals.shapes.formats.gltf_tables import Tables
from wsrl.signals.shapes.formats.polygons import Polygons, strip_triangles
from wsrl.signals.shapes.mesh_headers import FAN, STRIP, TRIANGLES, gltf_parts

DRACO, RESTART = "KHR_draco_mesh_compression", "EXT_mesh_primitive_restart"
APPLIED = (INSTANCING, VISIBILITY, RESTART, "KHR_mesh_quantization")
# Extensions of looks, lights, names and behaviour; of all others that a file requires we cannot know what they change.
LOOKS = re.compile(
    r"(KHR|EXT|MSFT|AGI|ADOBE|GOOGLE|BENTLEY|FB|VRMC?|NEEDLE)_(materials?|textures?|lights?|xmp|image|audio|animation|"
    r"structural_metadata|mesh_features|instance_features|property|node_selectability|node_hoverability|interactivity|"
    r"mesh_manifold|mesh_primitive_edge_visibility|rigid|physics|springBone|meta|packing|geometry_metadata|ngon).*|"
    r"KHR_techniques_webgl|CESIUM_primitive_outline|KHR_environment_map|EXT_lights_image_based"
)
# What would change the geometry of a part though it is not required.
CHANGING = re.compile(
    r".*(displacement|micromesh|micromap|subdivision|tessellat|parametric|_brep|gaussian_splat).*", re.I
)
LINES = {0: "points", 1: "lines", 2: "lines", 3: "lines"}


def read_gltf(data: bytes, resolve: Callable[[str], bytes] | None = None) -> Polygons:
    """The triangles that a file shows.

    Args:
        data: Content of the file, text or binary.
        resolve: Gives the bytes of a file that it refers to; None where there are none.

    Raises:
        SignalError: It is damaged, or has geometry in a form that is not read.
    """
    # the description, and what it refers to
    described, binary = gltf_parts(data)
    refuse_extensions(described)
    tables = Tables(described, binary, resolve)
    meshes, nodes, skins = (described.get(name, []) for name in ("meshes", "nodes", "skins"))
    world = world_matrices(nodes) if skins else []
    # each part of each mesh as often as the scene shows it, in the scene's coordinates
    others: Counter = Counter()
    vertices, faces, num = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    shown = shown_nodes(described) if nodes else (({"mesh": index}, np.eye(4)) for index in range(len(meshes)))
    for node, matrix in shown:
        if "mesh" not in node:
            continue
        skin = joint_matrices(skins[node["skin"]], world, tables) if "skin" in node else None
        matrices = instances(node, matrix, tables) if skin is None else np.eye(4)[None]
        for points, triangles in parts(meshes[node["mesh"]], node, skin, tables, others):
            for to_scene in matrices:
                # a mirror turns the triangles round
                mirrored = np.linalg.det(to_scene[:3, :3]) < 0
                # an index out of range must not become one of the next part
                known = (triangles >= 0) & (triangles < len(points))
                vertices.append(points @ to_scene[:3, :3].T + to_scene[:3, 3])
                faces.append(np.where(known, triangles + num, -1)[:, :: -1 if mirrored else 1])
                num += len(points)
    corners = np.concatenate(faces)
    return Polygons(
        vertices=np.concatenate(vertices), corners=corners.ravel(), sizes=np.full(len(corners), 3), others=others
    )


def refuse_extensions(described: Mapping) -> None:
    """Refuse what a file requires and we do not know.

    Raises:
        SignalError: With the name of the extension.
    """
    for name in described.get("extensionsRequired", []):
        packed = "draco" in str(name).lower() or "meshopt" in str(name).lower()
        if packed:
            raise SignalError(f"its meshes are packed by {name}", do="export it without compression of meshes")
        if name not in APPLIED and not LOOKS.fullmatch(str(name)):
            raise SignalError(
                f"it requires the extension {printable(str(name))}, which is not read",
                allowed=f"{', '.join(APPLIED)}, and extensions of materials, textures and lights",
                do="export it without",
            )


def parts(
    mesh: Mapping, node: Mapping, skin: np.ndarray | None, tables: Tables, others: Counter
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vertices ``(V, 3)`` and triangles ``(F, 3)`` of each part of a mesh that has any.

    Args:
        mesh: The mesh.
        node: The node that shows it; its weights go before those of the mesh.
        skin: Matrices of the joints ``(J, 4, 4)``; None for none.
        tables: Tables of the file.
        others: Counts the parts that are points or lines.
    """
    for primitive in mesh["primitives"]:
        # parts that hold no faces, or hold them in a form that is not read
        mode, attributes = primitive.get("mode", TRIANGLES), primitive["attributes"]
        for name in primitive.get("extensions", {}):
            if CHANGING.fullmatch(name):
                raise SignalError(f"its geometry is given by {printable(name)}, which is not read")
        if mode in LINES:
            others[LINES[mode]] += 1
            continue
        if mode not in (TRIANGLES, STRIP, FAN):
            raise SignalError(f"damaged: a part of mode {mode!r}", allowed="0 to 6")
        if "POSITION" not in attributes:
            continue  # the specification: nothing is drawn
        if DRACO in primitive.get("extensions", {}) and not tables.is_filled(attributes["POSITION"]):
            raise SignalError(f"its meshes are packed by {DRACO}", do="export it without compression of meshes")
        # vertices moved by morph targets, then by joints
        points = positions(primitive, node.get("weights", mesh.get("weights", [])), tables)
        if skin is not None:
            points = skinned(points, attributes, skin, tables)
        yield points, triangles_of(primitive, mode, tables)


def positions(primitive: Mapping, weights: list[float], tables: Tables) -> np.ndarray:
    """Vertices ``(V, 3)`` of a part, moved by its morph targets with these weights."""
    points = tables[primitive["attributes"]["POSITION"]].astype(np.float64)
    if points.shape[1] != 3:
        raise SignalError(f"damaged: positions of {points.shape[1]} numbers")
    for weight, target in zip(weights, primitive.get("targets", [])):
        if weight and "POSITION" in target:
            points = points + weight * tables[target["POSITION"]].astype(np.float64)
    return points


def skinned(points: np.ndarray, attributes: Mapping, skin: np.ndarray, tables: Tables) -> np.ndarray:
    """Vertices ``(V, 3)`` moved by the joints that they hang on.

    Args:
        points: Vertices ``(V, 3)`` of the mesh.
        attributes: Tables of the part by name: ``JOINTS_0``, ``WEIGHTS_0`` and on, four joints a table.
        skin: Matrices of the joints ``(J, 4, 4)``.
        tables: Tables of the file.
    """
    # the joints of each vertex and their weights, which add up to 1
    sets = [name.removeprefix("JOINTS_") for name in attributes if name.startswith("JOINTS_")]
    if not sets:
        return points
    joints = np.concatenate([tables[attributes[f"JOINTS_{number}"]] for number in sets], axis=1).astype(np.int64)
    weights = np.concatenate([tables[attributes[f"WEIGHTS_{number}"]] for number in sets], axis=1).astype(np.float64)
    if joints.size and joints.max() >= len(skin):
        raise SignalError(f"damaged: a vertex hangs on joint {joints.max()} of {len(skin)}")
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    # the mean of where each of its joints would move it
    result = np.zeros_like(points)
    for column in range(joints.shape[1]):  # four or eight; all at once would need a matrix for each vertex
        matrices = skin[joints[:, column]]  # (V, 4, 4)
        moved = np.einsum("vij,vj->vi", matrices[:, :3, :3], points) + matrices[:, :3, 3]
        result += weights[:, column, None] * moved
    return result


def triangles_of(primitive: Mapping, mode: int, tables: Tables) -> np.ndarray:
    """Triangles ``(F, 3)`` of a part in its mode; without indices its vertices follow each other."""
    if "indices" not in primitive:
        runs = [np.arange(tables.count(primitive["attributes"]["POSITION"]))]
    else:
        index = tables[primitive["indices"]][:, 0].astype(np.int64)
        runs = [index]
        if mode != TRIANGLES:
            breaks = np.flatnonzero(index == tables.restart(primitive["indices"]))
            runs = [np.delete(run, slice(0, int(number > 0))) for number, run in enumerate(np.split(index, breaks))]
    if mode == TRIANGLES:
        return runs[0][: len(runs[0]) // 3 * 3].reshape(-1, 3)
    return np.concatenate([strip_triangles(run) if mode == STRIP else fan_triangles(run) for run in runs])


def fan_triangles(fan: np.ndarray) -> np.ndarray:
    """Triangles ``(n - 2, 3)`` around the first vertex."""
    if len(fan) < 3:
        return np.zeros((0, 3), np.int64)
    return np.stack([np.full(len(fan) - 2, fan[0]), fan[1:-1], fan[2:]], axis=1)
