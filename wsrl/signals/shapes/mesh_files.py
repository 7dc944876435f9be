"""Mesh files of a folder as contents of a source: bytes, and how to make a mesh of them."""

from pathlib import Path
from urllib.parse import unquote

import trimesh

from wsrl.errors import SignalError, printable
from wsrl.signals.shapes.archives import read_bounded, read_inside
from wsrl.signals.shapes.mesh import MeshLimits, read_mesh
from wsrl.signals.shapes.mesh_headers import gltf_parts
from wsrl.signals.shapes.shape import Content

LARGEST_DESCRIPTION = 1 << 26  # bytes of JSON that is read to find the buffers


def mesh_content(root: Path, path: str, limits: MeshLimits) -> Content:
    """The content of a mesh file with the files that matter to its triangles; textures and materials do not.

    Args:
        root: Folder that a reference may not lead out of.
        path: The mesh file, relative to it; it may be a link to anywhere.
        limits: What is refused.

    Raises:
        SignalError: It, or a file it needs, cannot be read.
    """
    file = root / path
    file_type = file.suffix.lower().removeprefix(".")
    data = read_bounded(file, printable(file.name), limits.max_bytes)
    try:
        needed = buffers(root, file.parent, data, limits.max_bytes) if file_type in ("gltf", "glb") else {}
    except SignalError as error:
        raise SignalError(f"{printable(file.name)}: {error.wrong}", allowed=error.allowed, do=error.do) from error
    everything = b"\0".join([file_type.encode(), data, *(name.encode() + b"\0" + needed[name] for name in needed)])
    name = printable(file.name)

    def resolve(reference: str) -> bytes:
        reference = unquote(reference)
        if reference not in needed:
            raise SignalError(f"{name}: it refers to {printable(reference)}, which is none of its buffers")
        return needed[reference]

    def make() -> trimesh.Trimesh:
        return read_mesh(data, file_type, resolve=resolve, name=name, limits=limits)

    return Content(everything, make)


def buffers(root: Path, folder: Path, data: bytes, max_bytes: int) -> dict[str, bytes]:
    """The buffers that a glTF file refers to, by name; those inside of it (``data:``) are left to the reader.

    Raises:
        SignalError: The description is damaged, or a buffer cannot be had.
    """
    if len(data) > LARGEST_DESCRIPTION and not data.startswith(b"glTF"):
        raise SignalError(f"a glTF description of {len(data):,} bytes", allowed=f"at most {LARGEST_DESCRIPTION:,}")
    try:
        described, _ = gltf_parts(data)
        references = [buffer.get("uri") for buffer in described.get("buffers", [])]
    except (AttributeError, TypeError) as error:
        raise SignalError("damaged, or not a gltf file") from error
    contents: dict[str, bytes] = {}
    for reference in references:
        if not isinstance(reference, str) or reference.startswith("data:"):
            continue
        reference = unquote(reference)
        if reference not in contents:
            left = max_bytes - sum(map(len, contents.values()))
            contents[reference] = read_inside(root, folder, reference, left)
    return contents
