"""What a mesh file announces, checked against its size and the limits before anything is made of it.

A header of a few bytes can announce more faces than there is memory for, and a glTF scene can show one mesh many times.
"""

import json
import re
import struct
from collections.abc import Mapping

from wsrl.errors import SignalError
from wsrl.signals.shapes.formats.ply import header
from wsrl.signals.shapes.formats.stl import binary_facets
from wsrl.signals.shapes.formats.words import plain

LARGEST_HEADER = 1 << 16
GLB_HEADER, GLB_CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")
COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
TRIANGLES, STRIP, FAN = 4, 5, 6
SECOND_VERSION = {"allowed": "glTF 2.0", "do": "convert it, for example by importing and exporting it with Blender"}


def announced_faces(data: bytes, file_type: str, max_bytes: int) -> int:
    """Number of faces that a file announces; polygons count as one.

    Args:
        data: Content of the file.
        file_type: Its extension without the dot.
        max_bytes: Largest size of what its tables may take in memory.

    Returns:
        A number that the reader will not exceed by more than the corners of polygons; 0 where nothing is announced.

    Raises:
        SignalError: The file is not what it announces.
    """
    if not data[:LARGEST_HEADER].strip(b"\0 \t\r\n"):
        raise SignalError("the file is empty")
    if file_type == "obj":
        return len(re.findall(rb"(?im)^[ \t]*f[ \t]", plain(data)))
    counters = {"stl": stl_faces, "ply": ply_faces, "off": off_faces}
    if file_type in counters:
        return counters[file_type](data)
    if file_type == "glb" and not data.startswith((b"glTF", b"{")):
        raise SignalError("not a GLB file")
    return gltf_faces(gltf_parts(data)[0], max_bytes)


def stl_faces(data: bytes) -> int:
    """Faces of an STL file: by its length if that fits a binary one, else the facets of its text."""
    facets = binary_facets(data)
    if facets is not None:
        return facets
    facets = len(re.findall(rb"(?i)endfacet", plain(data)))
    if not facets and not plain(data).lstrip()[:5].lower() == b"solid":
        raise SignalError("damaged: its length does not fit the number of faces in its header")
    return facets


def ply_faces(data: bytes) -> int:
    """Faces of a PLY file by its header."""
    _, elements, _ = header(plain(data))
    num_rows = sum(element.rows for element in elements)
    if num_rows > len(data):
        raise SignalError(f"damaged: it announces {num_rows:,} rows in {len(data):,} bytes")
    return sum(element.rows for element in elements if element.name.lower() == "face")


def off_faces(data: bytes) -> int:
    """Faces of an OFF file by its first line of numbers."""
    text = re.sub(rb"#[^\r\n]*", b"", plain(data[:LARGEST_HEADER]))
    match = re.match(rb"\s*(?:(?:ST)?C?N?4?N?OFF)?\s*(\d+)\s+(\d+)", text, re.IGNORECASE)
    if not match:
        if re.match(rb"\s*\w*OFF\s+BINARY", text, re.IGNORECASE):
            return 0  # the reader tells
        raise SignalError("damaged: it has no OFF header")
    vertices, faces = int(match[1]), int(match[2])
    if vertices + faces > len(data):
        raise SignalError(f"damaged: it announces {vertices + faces:,} rows in {len(data):,} bytes")
    return faces


def gltf_parts(data: bytes) -> tuple[Mapping, bytes | None]:
    """The description of a glTF file, text or binary whatever its ending says, and its binary part or None.

    Raises:
        SignalError: It is damaged, or of another version than 2.
    """
    if not data.startswith(b"glTF"):
        return description(data), None
    if len(data) < GLB_HEADER.size + GLB_CHUNK.size:
        raise SignalError("damaged: shorter than the header of a GLB file")
    _, version, _ = GLB_HEADER.unpack_from(data)
    if version == 1:
        raise SignalError("a GLB file of version 1 (glTF 1.0)", **SECOND_VERSION)
    if version != 2:
        raise SignalError(f"not a GLB file of version 2, but of {version}", **SECOND_VERSION)
    position, chunks = GLB_HEADER.size, []
    while position + GLB_CHUNK.size <= len(data):
        length, kind = GLB_CHUNK.unpack_from(data, position)
        position += GLB_CHUNK.size
        if length > len(data) - position:
            raise SignalError(f"damaged: a part of {length:,} bytes, of which {len(data) - position:,} are there")
        chunks.append((kind, position, length))
        position += length
    if not chunks or chunks[0][0] != b"JSON":
        raise SignalError("damaged: it has no description")
    (_, start, length), *rest = chunks
    described = description(data[start : start + length])
    has_binary = rest and rest[0][0] == b"BIN\0"
    return described, data[rest[0][1] : rest[0][1] + rest[0][2]] if has_binary else None


def description(text: bytes) -> Mapping:
    """The JSON object of a glTF file."""
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SignalError("damaged: its description is no JSON") from error
    if not isinstance(described, Mapping):
        raise SignalError("damaged: its description is no JSON object")
    asset = described.get("asset")
    version = str(asset.get("version", "2.0") if isinstance(asset, Mapping) else "2.0")
    if version.startswith("1") or isinstance(described.get("meshes"), Mapping):
        raise SignalError("a description of glTF 1.0", **SECOND_VERSION)
    if not version.startswith("2"):
        raise SignalError(f"a description of glTF {version[:20]}", **SECOND_VERSION)
    return described


def gltf_faces(described: Mapping, max_bytes: int) -> int:
    """Faces of a glTF scene, those of a mesh as often as it is shown.

    Raises:
        SignalError: It is inconsistent, or describes too much.
    """
    try:
        accessors = described.get("accessors", [])
        size = sum(
            checked_count(a["count"]) * COMPONENTS[a["type"]] * COMPONENT_BYTES[a["componentType"]] for a in accessors
        )
        if size > max_bytes:
            raise SignalError(f"its tables take {size:,} bytes", allowed=f"at most {max_bytes:,} bytes")
        faces = [sum(primitive_faces(part, accessors) for part in m["primitives"]) for m in described.get("meshes", [])]
        shown = shown_meshes(described.get("nodes", []))
        return sum(faces[mesh] * shown_times(node, accessors) for node, mesh in shown) if shown else sum(faces)
    except SignalError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SignalError(f"damaged: its description is inconsistent ({type(error).__name__}: {error})") from error


def checked_count(count: object) -> int:
    """A count that is one."""
    if not isinstance(count, int) or count < 0:
        raise SignalError(f"damaged: a table of {count!r} rows")
    return count


def primitive_faces(primitive: Mapping, accessors: list) -> int:
    """Triangles of one part of a mesh; none where it holds lines or points."""
    corners = accessors[primitive.get("indices", primitive["attributes"]["POSITION"])]["count"]
    mode = primitive.get("mode", TRIANGLES)
    return corners // 3 if mode == TRIANGLES else corners if mode in (STRIP, FAN) else 0


def shown_times(node: Mapping, accessors: list) -> int:
    """How often a node shows its mesh: the rows of its table of instances, if it has one."""
    instancing = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
    if instancing is None:
        return 1
    return max((accessors[number]["count"] for number in instancing.get("attributes", {}).values()), default=0)


def shown_meshes(nodes: list) -> list[tuple[Mapping, int]]:
    """Each node that has a mesh, and the mesh; the nodes must be trees, as glTF demands."""
    children = [child for node in nodes for child in node.get("children", [])]
    if len(set(children)) != len(children) or not all(0 <= child < len(nodes) for child in children):
        raise SignalError("damaged: its nodes are no trees")
    inner = set(children)
    reached, waiting = 0, [index for index in range(len(nodes)) if index not in inner]
    while waiting:
        reached += 1
        waiting.extend(nodes[waiting.pop()].get("children", []))
    if reached != len(nodes):
        raise SignalError("damaged: its nodes go round in circles")
    return [(node, node["mesh"]) for node in nodes if "mesh" in node]
