"""Bytes of a mesh file to raw triangles, with a reason for everything that cannot be one.

Colours, textures and materials are never loaded. Scenes are flattened with their transforms.

Letters: V vertices, F faces.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh
from trimesh.resolvers import Resolver

from wsrl.errors import SignalError
from wsrl.signals.image import one_line
from wsrl.signals.mesh_headers import announced_faces

MESH_TYPES = ("obj", "ply", "stl", "off", "glb", "gltf")
MAX_FACES = 1_000_000
MAX_BYTES = 1 << 29
# What trimesh's readers raise on damaged files: they do not wrap their parsers.
DECODE_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NameError,
    NotImplementedError,
    AssertionError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class MeshLimits:
    """What is refused before it is worked on.

    Attributes:
        max_faces: Largest number of triangles.
        max_bytes: Largest size of the file with the buffers it refers to.
    """

    max_faces: int = MAX_FACES
    max_bytes: int = MAX_BYTES


class References(Resolver):
    """The files that a mesh file refers to, as trimesh asks for them.

    Args:
        resolve: Gives the bytes of a file by name; None where there are none.
    """

    def __init__(self, resolve: Callable[[str], bytes] | None):
        self._resolve = resolve

    def get(self, name: str) -> bytes:
        """Bytes of a file.

        Args:
            name: As the mesh file spells it.
        """
        if self._resolve is None:
            raise SignalError(f"it refers to {name!r}, which is not there")
        return self._resolve(name)

    def write(self, name: str, data: bytes) -> None:
        """Nothing is written.

        Args:
            name: As the mesh file spells it.
            data: Not used.
        """
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Nothing can be listed."""
        return []

    def namespaced(self, namespace: str) -> "References":
        """The same files.

        Args:
            namespace: Not used.
        """
        return self


def read_mesh(
    data: bytes,
    file_type: str,
    resolve: Callable[[str], bytes] | None = None,
    name: str = "mesh",
    limits: MeshLimits | None = None,
) -> trimesh.Trimesh:
    """Read the triangles of a file as they are.

    Args:
        data: Content of the file.
        file_type: Its extension without the dot, one of ``MESH_TYPES``.
        resolve: Gives the bytes of a file this one refers to by name (buffers of glTF); None where there are none.
        name: What to call the file in messages.
        limits: What is refused.

    Returns:
        One mesh with vertices ``(V, 3)`` float64 and faces ``(F, 3)`` int64 in the file's units, not cleaned.

    Raises:
        SignalError: The file holds no mesh, is damaged, or is beyond the limits.
    """
    limits = limits or MeshLimits()
    if file_type not in MESH_TYPES:
        raise SignalError(f"{name}: not a kind of mesh file that is read", allowed=", ".join(MESH_TYPES))
    if len(data) > limits.max_bytes:
        raise SignalError(f"{name}: {len(data):,} bytes", allowed=f"at most {limits.max_bytes:,} bytes")
    try:
        check_faces(announced_faces(data, file_type, limits.max_bytes), limits)
        mesh = load(data, file_type, resolve)
        check_faces(len(mesh.faces), limits)
        return mesh
    except SignalError as error:
        raise SignalError(f"{name}: {error.wrong}", allowed=error.allowed, do=error.do) from error
    except DECODE_ERRORS as error:
        raise SignalError(f"{name}: damaged, or not a {file_type} file ({one_line(error)})") from error


def check_faces(num: int, limits: MeshLimits) -> None:
    """Refuse more faces than are allowed.

    Args:
        num: Number of faces.
        limits: What is refused.
    """
    if num > limits.max_faces:
        raise SignalError(
            f"{num:,} faces", allowed=f"at most {limits.max_faces:,} (option max_faces)", do="simplify it first"
        )


def load(data: bytes, file_type: str, resolve: Callable[[str], bytes] | None) -> trimesh.Trimesh:
    """Read and flatten a scene.

    Args:
        data: Content of the file.
        file_type: Its extension without the dot.
        resolve: Gives the bytes of a file this one refers to.

    Raises:
        SignalError: It holds no faces.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        scene = trimesh.load_scene(
            io.BytesIO(data), file_type=file_type, resolver=References(resolve), process=False, skip_materials=True
        )
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        points = sum(len(getattr(part, "vertices", ())) for part in scene.geometry.values())
    if not parts:
        raise SignalError(
            f"it holds {points:,} points but no faces" if points else "it holds no faces", allowed="a mesh of triangles"
        )
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([np.asarray(part.vertices, np.float64) for part in parts])
    # an index out of range must not become one of the next part
    faces = [
        np.where((f >= 0) & (f < len(part.vertices)), f + start, -1)
        for part, start in zip(parts, offsets)
        for f in [np.asarray(part.faces, np.int64)]
    ]
    return trimesh.Trimesh(vertices, np.concatenate(faces), process=False)
