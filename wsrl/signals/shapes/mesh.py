"""Bytes of a mesh file to raw triangles, with a reason for everything that cannot be one.

Colours, textures and materials are never loaded. Scenes are flattened with their transforms. The readers stand in
``formats``: those of trimesh misread many files that other programs write.

Letters: V vertices, F faces.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import trimesh

from wsrl.errors import SignalError, one_line
from wsrl.signals.listing import MESH_TYPES
from wsrl.signals.shapes.formats.gltf import read_gltf
from wsrl.signals.shapes.formats.obj import read_obj
from wsrl.signals.shapes.formats.off import read_off
from wsrl.signals.shapes.formats.ply import read_ply
from wsrl.signals.shapes.formats.polygons import Polygons, triangulate
from wsrl.signals.shapes.formats.stl import read_stl
from wsrl.signals.shapes.mesh_headers import announced_faces

MAX_FACES = 1_000_000
MAX_BYTES = 1 << 29
# What a reader raises on damage that it does not look for.
DECODE_ERRORS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    struct.error,
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
        polygons = load(data, file_type, resolve, limits)
        check_faces(polygons.num_triangles, limits)
        return trimesh.Trimesh(polygons.vertices, triangulate(polygons), process=False)
    except SignalError as error:
        raise SignalError(f"{name}: {error.wrong}", allowed=error.allowed, do=error.do) from error
    except DECODE_ERRORS as error:
        raise SignalError(f"{name}: damaged, or not a {file_type} file ({one_line(error)})") from error


def check_faces(num: int, limits: MeshLimits) -> None:
    """Refuse more faces than are allowed."""
    if num > limits.max_faces:
        raise SignalError(
            f"{num:,} faces", allowed=f"at most {limits.max_faces:,} (option max_faces)", do="simplify it first"
        )


def load(data: bytes, file_type: str, resolve: Callable[[str], bytes] | None, limits: MeshLimits) -> Polygons:
    """Read the faces of a file, those of a scene with their transforms.

    Raises:
        SignalError: It holds no faces; the message names what it holds instead.
    """
    readers = {"obj": read_obj, "ply": read_ply, "stl": read_stl, "off": read_off}
    polygons = readers[file_type](data) if file_type in readers else read_gltf(data, resolve)
    if not len(polygons.sizes):
        held = {"points": len(polygons.vertices)} | dict(polygons.others)
        contents = [f"{number:,} {name}" for name, number in held.items() if number]
        wrong = f"it holds {' and '.join(contents)} but no faces" if contents else "it holds no faces"
        raise SignalError(wrong, allowed="a mesh of triangles or other polygons")
    return polygons
