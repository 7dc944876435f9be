"""What a glTF scene shows: nodes with their transforms, hidden ones left out, instances, joints.

Letters: I instances, J joints.

Source: Khronos, glTF 2.0 specification, sections 3.5 and 3.7; EXT_mesh_gpu_instancing; KHR_node_visibility.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from wsrl.errors import SignalError
from wsrl.signals.shapes.formats.gltf_tables import Tables

INSTANCING, VISIBILITY = "EXT_mesh_gpu_instancing", "KHR_node_visibility"


def shown_nodes(described: Mapping) -> Iterator[tuple[Mapping, np.ndarray]]:
    """Each node that the scene shows, with its matrix ``(4, 4)`` to the scene.

    The scene is the one that the file names, else its first; without any, all nodes; the nodes must be trees.
    """
    nodes, scenes = described.get("nodes", []), described.get("scenes", [])
    inner = {child for node in nodes for child in node.get("children", [])}
    roots = [index for index in range(len(nodes)) if index not in inner]
    if scenes:
        number = described.get("scene", 0)
        if not (isinstance(number, int) and 0 <= number < len(scenes)):
            raise SignalError(f"damaged: it shows scene {number!r} of {len(scenes)}")
        roots = scenes[number].get("nodes", [])
    # downwards from the roots; what a hidden node holds is hidden too
    waiting = [(index, np.eye(4)) for index in reversed(roots)]
    while waiting:
        index, above = waiting.pop()
        if not (isinstance(index, int) and 0 <= index < len(nodes)):
            raise SignalError(f"damaged: it refers to node {index!r} of {len(nodes)}")
        node = nodes[index]
        if not node.get("extensions", {}).get(VISIBILITY, {}).get("visible", True):
            continue
        matrix = above @ local_matrix(node)
        waiting += [(child, matrix) for child in reversed(node.get("children", []))]
        yield node, matrix


def world_matrices(nodes: list[Mapping]) -> list[np.ndarray]:
    """Matrix ``(4, 4)`` of every node to its root; the nodes must be trees."""
    parent = {child: index for index, node in enumerate(nodes) for child in node.get("children", [])}
    result = []
    for index, node in enumerate(nodes):
        matrix = local_matrix(node)
        while index in parent:
            index = parent[index]
            matrix = local_matrix(nodes[index]) @ matrix
        result.append(matrix)
    return result


def local_matrix(node: Mapping) -> np.ndarray:
    """Matrix ``(4, 4)`` of a node to its parent: its ``matrix``, column by column, or that of its movements."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    parts = [
        np.array([node.get(name, default)], np.float64)
        for name, default in (("translation", [0, 0, 0]), ("rotation", [0, 0, 0, 1]), ("scale", [1, 1, 1]))
    ]
    return composed(*parts)[0]


def composed(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Matrices ``(I, 4, 4)`` that scale, then rotate, then move.

    Args:
        translation: ``(I, 3)``.
        rotation: Quaternions ``(I, 4)``, the real part last; they need not be of length 1.
        scale: ``(I, 3)``.
    """
    x, y, z, w = (rotation / np.maximum(np.linalg.norm(rotation, axis=1, keepdims=True), 1e-300)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrices = np.tile(np.eye(4), (len(translation), 1, 1))
    matrices[:, :3, :3] = np.moveaxis(np.array(rows), 2, 0) * scale[:, None, :]
    matrices[:, :3, 3] = translation
    return matrices


def instances(node: Mapping, matrix: np.ndarray, tables: Tables) -> np.ndarray:
    """Matrices ``(I, 4, 4)`` to the scene with which the mesh of a node is shown, whose own is ``matrix``."""
    instancing = node.get("extensions", {}).get(INSTANCING)
    if instancing is None:
        return matrix[None]
    attributes = {name: tables[number].astype(np.float64) for name, number in instancing.get("attributes", {}).items()}
    num = {len(values) for values in attributes.values()}
    if len(num) > 1:
        raise SignalError(f"damaged: {INSTANCING} with tables of {', '.join(map(str, sorted(num)))} rows")
    ones = np.ones((num.pop() if num else 0, 1))
    default = {"TRANSLATION": ones * np.zeros(3), "ROTATION": ones * [0, 0, 0, 1], "SCALE": ones * np.ones(3)}
    return matrix @ composed(*(attributes.get(name, values) for name, values in default.items()))


def joint_matrices(skin: Mapping, world: list[np.ndarray], tables: Tables) -> np.ndarray:
    """Matrices ``(J, 4, 4)`` that take the mesh of a skin to the scene, one for each joint."""
    joints = np.array([world[joint] for joint in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return joints
    inverse = tables[skin["inverseBindMatrices"]][: len(joints)].astype(np.float64)
    return joints @ inverse.reshape(-1, 4, 4).transpose(0, 2, 1)
