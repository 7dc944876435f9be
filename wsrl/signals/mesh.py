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

from wsrl.errors import SignalError
from wsrl.signals.image import one_line

MAX_FACES = 2_000_000
# What trimesh's readers raise on damaged files: they do not wrap their parsers.
DECODE_ERRORS = (
    OSError,
    ValueError,
    IndexError,
    KeyError,
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
    max_bytes: int = 1 << 30


class References(trimesh.resolvers.Resolver):
    """What a file refers to, in trimesh's terms.

    Args:
        resolve: Gives the bytes of a file by its name.
    """

    def __init__(self, resolve: Callable[[str], bytes]):
        self._resolve = resolve

    def get(self, name: str) -> bytes:
        """Content of a file.

        Args:
            name: Its name.
        """
        return self._resolve(name)

    def write(self, name: str, data: bytes) -> None:
        """Nothing is ever written."""
        raise NotImplementedError

    def namespaced(self, namespace: str) -> "References":
        """Names are relative to one folder only."""
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Nothing is listed."""
        return []


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
    if len(data) > limits.max_bytes:
        raise SignalError(f"{name}: {len(data):,} bytes", allowed=f"at most {limits.max_bytes:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = trimesh.load_scene(
                io.BytesIO(data),
                file_type=file_type,
                resolver=None if resolve is None else References(resolve),
                process=False,
                skip_materials=True,
                maintain_order=True,
            )
            mesh = loaded.to_mesh()
    except SignalError:
        raise
    except DECODE_ERRORS as error:
        raise SignalError(f"{name}: damaged, or not a {file_type} file ({one_line(error)})") from error
    vertices = np.array(mesh.vertices, np.float64).reshape(-1, 3)
    faces = np.array(mesh.faces, np.int64).reshape(-1, 3)
    if len(faces) > limits.max_faces:
        raise SignalError(f"{name}: {len(faces):,} faces", allowed=f"at most {limits.max_faces:,} (option max_faces)")
    return trimesh.Trimesh(vertices, faces, process=False)
