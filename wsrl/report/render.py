"""Pictures of meshes, shaded on the CPU without a display: single views, turntables and contact sheets.

Every face is drawn from both sides, back faces in red: what is red has its normals inside out, or is open. Y is up.

Letters: V vertices, F faces, K pairs of a face and a pixel it may cover.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from wsrl.report.contact_sheet import grid_sheet

Frame = tuple[Sequence[float], float]
"""Centre and radius of the ball that fills a picture."""
NORMALISED: Frame = ((0.0, 0.0, 0.0), 1.0)
"""The frame of normalised shapes: pictures of several shapes can then be compared."""
OVERSAMPLING = 2
SMALL_MESH = 48
FRAMES, ROUND_MS = 24, 3000
PAIRS_AT_ONCE = 1 << 20
LIGHT = np.array([-0.45, 0.65, 0.61])  # from the upper left, in front; a unit vector
AMBIENT, DIFFUSE, RIM = 0.42, 0.58, 0.18
BEHIND = 1e-4
"""How far backs are moved away, in radii: of two faces back to back, as in many files, the front is seen."""
FRONT = np.array([176, 196, 222])
BACK = np.array([214, 92, 76])


def render_mesh(
    mesh, size: int = 256, *, azimuth: float = 35.0, elevation: float = 25.0, frame: Frame | None = None
) -> Image.Image:
    """A shaded picture of a mesh in parallel projection, on white.

    Args:
        mesh: Something with ``vertices (V, 3)`` and ``faces (F, 3)``.
        size: Height and width in pixels.
        azimuth: Degrees that the viewer has gone around the shape; 0 looks against Z, 90 against X.
        elevation: Degrees that the viewer stands above it.
        frame: What fills the picture; None takes the ball about the mesh's bounding box.

    Returns:
        An RGB picture; without faces it is white and says ``empty``.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces)
    if not len(faces):
        return _empty(size)
    center, radius = frame or _ball(vertices[np.unique(faces)])
    seen = (vertices - np.asarray(center)) @ _view(azimuth, elevation).T / (radius or 1.0)
    side = size * OVERSAMPLING
    colours, back = _shade(seen, faces)
    face_of = _visible_faces(seen, faces, back, side)
    colours = np.concatenate([colours, [[255.0, 255.0, 255.0]]])  # the last one is the background
    pixels = colours[face_of].reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3).mean(axis=(1, 3))
    return Image.fromarray(pixels.round().astype(np.uint8))


def field_picture(field, size: int, frame: Frame | None = NORMALISED) -> Image.Image:
    """What a field shows in a small picture: its values, or its shaded mesh on ``SMALL_MESH`` cells a side.

    Args:
        field: A :class:`wsrl.store.field.Field` of a picture or a shape.
        size: Longer side in pixels.
        frame: What fills the picture of a shape; None takes the ball about its bounding box.
    """
    return render_mesh(field.mesh(SMALL_MESH), size, frame=frame) if field.form.is_shape else field.image(size)


def turntable(mesh, size: int) -> list[Image.Image]:
    """Pictures of a mesh from all around, one turn in ``FRAMES`` equal steps.

    Args:
        mesh: Something with ``vertices`` and ``faces``.
        size: Height and width in pixels.
    """
    turns = (360.0 * i / FRAMES for i in range(FRAMES))
    return [render_mesh(mesh, size, azimuth=35.0 + turn) for turn in turns]


def gif(pictures: Sequence[Image.Image]) -> bytes:
    """Pictures of one size as an animation that repeats for ever, a round in ``ROUND_MS`` milliseconds."""
    data = BytesIO()
    first, *rest = (picture.quantize(64) for picture in pictures)
    first.save(data, format="GIF", save_all=True, append_images=rest, loop=0, duration=ROUND_MS / len(pictures))
    return data.getvalue()


def shape_sheet(
    meshes: Sequence,
    columns: int = 8,
    size: int = 128,
    titles: Sequence[str] | None = None,
) -> Image.Image:
    """Shaded meshes in rows on white.

    Args:
        meshes: Meshes; those without faces get a cell that says ``empty``.
        columns: Meshes in a row.
        size: Side of a cell in pixels.
        titles: A few words for each mesh, written into its cell.
    """
    cells = [render_mesh(mesh, size, frame=NORMALISED) for mesh in meshes]
    for cell, title in zip(cells, titles or ()):
        ImageDraw.Draw(cell).text((2, size - 12), title, fill="black")
    return grid_sheet(cells, columns, size)


def _empty(size: int) -> Image.Image:
    picture = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(picture).text((size / 2, size / 2), "empty", fill="grey", anchor="mm")
    return picture


def _ball(points: np.ndarray) -> Frame:
    """The ball about the centre of the bounding box that holds all points, with a margin."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    return center, 1.04 * float(np.linalg.norm(points - center, axis=1).max())


def _view(azimuth: float, elevation: float) -> np.ndarray:
    """Rotation ``(3, 3)`` to right, up and towards the viewer."""
    a, e = np.radians([azimuth, elevation])
    around = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    above = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return above @ around


def _shade(seen: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour ``(F, 3)`` of every face and whether it shows its back.

    The light is Lambert's cosine on top of ambient light, and less where the face turns away from the viewer.
    """
    one, two, three = (seen[faces[:, i]] for i in range(3))
    normals = np.cross(two - one, three - one)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    back = normals[:, 2] < 0
    normals[back] *= -1
    light = AMBIENT + DIFFUSE * np.maximum(normals @ LIGHT, 0) - RIM * (1 - normals[:, 2]) ** 2
    return np.where(back[:, None], BACK, FRONT) * np.clip(1.1 * light, 0, 1.14)[:, None], back


def _visible_faces(seen: np.ndarray, faces: np.ndarray, back: np.ndarray, side: int) -> np.ndarray:
    """The face nearest to the viewer at every pixel, ``(side, side)``; -1 where there is none."""
    corners = np.stack([(seen[:, 0] + 1) / 2 * side, (1 - seen[:, 1]) / 2 * side], axis=1)[faces] - 0.5  # (F, 3, 2)
    depths = seen[:, 2][faces] - BEHIND * back[:, None]
    nearest, face_of = np.full(side * side, -np.inf), np.full(side * side, -1)
    for face, pixel, depth in _covered(corners, depths, side):
        np.maximum.at(nearest, pixel, depth)
        front = depth == nearest[pixel]
        face_of[pixel[front]] = face[front]
    return face_of.reshape(side, side)


def _covered(corners: np.ndarray, depths: np.ndarray, side: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of a face and a pixel whose centre it covers, with the depth there; some at a time.

    Args:
        corners: Corners of the faces, ``(F, 3, 2)``, in pixels from the centre of the first one.
        depths: Their depths ``(F, 3)``, growing towards the viewer.
        side: Pixels of a side.
    """
    low = np.ceil(corners.min(axis=1)).clip(0, side).astype(np.int64)  # (F, 2) first column and row
    sizes = (np.floor(corners.max(axis=1)).clip(-1, side - 1).astype(np.int64) + 1 - low).clip(0)
    (ax, ay), (bx, by) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    area = ax * by - ay * bx
    counts = np.where(area == 0, 0, sizes.prod(axis=1))
    drawn = np.flatnonzero(counts)
    ends = np.cumsum(counts[drawn])
    start = 0
    while start < len(drawn):  # at least one face, whatever it covers
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        batch = drawn[start:stop]
        face = np.repeat(batch, counts[batch])
        index = np.arange(len(face)) - np.repeat(ends[start:stop] - counts[batch] - done, counts[batch])
        row, column = np.divmod(index, sizes[face, 0])
        x, y = low[face, 0] + column, low[face, 1] + row
        dx, dy = x - corners[face, 0, 0], y - corners[face, 0, 1]
        second, third = (dx * by[face] - dy * bx[face]) / area[face], (dy * ax[face] - dx * ay[face]) / area[face]
        inside = (second >= 0) & (third >= 0) & (second + third <= 1)
        face, second, third = face[inside], second[inside], third[inside]
        first = depths[face, 0]
        depth = first + second * (depths[face, 1] - first) + third * (depths[face, 2] - first)
        yield face, (y * side + x)[inside], depth
        start = stop
