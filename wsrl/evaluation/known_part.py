"""Files that show a part of a signal: pictures with unknown pixels, and points on a surface.

Letters: H height, W width, P points, C channels.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import trimesh
from PIL import Image

from wsrl.errors import SignalError, UserError, one_line
from wsrl.report.render import NORMALISED, render_mesh
from wsrl.signals.pictures.image import (
    DECODE_ERRORS,
    MAX_PIXELS,
    check_dimensions,
    check_regular,
    open_picture,
)

POINT_FILES = (".npy", ".ply", ".xyz")
BARE = ((222, 154, 148), (246, 214, 208))
"""Two reds that no grey picture has."""
OPAQUE = 128
"""Least of 255 levels at which a pixel is known."""


def read_picture_part(
    path: Path, mask: Path | None, grid: tuple[int, int], channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a picture shows.

    Args:
        path: A picture; without a mask, what is transparent is unknown.
        mask: A picture of the same size that is white where the first one is known; None takes its transparency.
        grid: Height and width that it must have.
        channels: 1 for grey, 3 for colour.

    Returns:
        Values ``(H, W, C)`` from 0 to 1 and whether they are known ``(H, W)``.

    Raises:
        UserError: A file cannot be read, has another size, or all or nothing is known.
    """
    picture = _open(path, grid, "--complete")
    layer = picture.convert("RGBA")
    values = np.asarray(layer.convert("RGB").convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    # What is known: where the mask is white, or where the picture is opaque.
    if mask is not None:
        known = np.asarray(_open(mask, grid, "--mask").convert("L")) >= OPAQUE
    elif picture.has_transparency_data:
        known = np.asarray(layer)[..., 3] >= OPAQUE
    else:
        raise UserError(
            f"{path} does not say what is unknown",
            allowed="a picture with transparent pixels, or a mask that is white where it is known",
            do="pass --mask FILE, or erase the unknown part to transparency",
        )
    if known.all() or not known.any():
        share = "all" if known.any() else "nothing"
        raise UserError(f"{share} of {path} is known", allowed="a part of it", do="look at its transparency or mask")
    return values.reshape(*grid, channels), known


def _open(path: Path, grid: tuple[int, int], option: str) -> Image.Image:
    allowed = f"a picture of {grid[1]}x{grid[0]} pixels (width x height), the size that the model was trained on"
    try:
        check_regular(path)
        with open_picture(path) as picture:
            check_dimensions(path, picture.size, MAX_PIXELS)
            if picture.size != grid[::-1]:
                size = f"{picture.width}x{picture.height}"
                raise UserError(f"{path} of {option} has {size} pixels", allowed=allowed, do="resize it")
            picture.load()
            return picture.copy()
    except SignalError as error:
        raise UserError(error.wrong, allowed=allowed, do=f"check the path of {option}") from error
    except UserError:
        raise
    except DECODE_ERRORS as error:
        raise UserError(f"{path} is damaged ({one_line(error)})", allowed=allowed, do="write it again") from error


def read_points(path: Path) -> np.ndarray:
    """Points ``(P, 3)`` on the surface of a shape, in the coordinates of the fields.

    Args:
        path: ``.npy`` or text (``.xyz``) of rows ``x y z``, or ``.ply``, whose vertices are taken.

    Raises:
        UserError: It cannot be read, or points are outside of [-1, 1]^3.
    """
    allowed = f"points x y z in a file {', '.join(POINT_FILES)}"
    kind = path.suffix.lower()
    if kind not in POINT_FILES:
        raise UserError(f"{path} is no file of points", allowed=allowed, do="convert it")
    try:
        points = np.asarray(_read(path, kind), dtype=np.float32)
    except (OSError, ValueError, IndexError, KeyError, TypeError, EOFError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}", allowed=allowed, do="write it again") from error
    if points.ndim != 2 or points.shape[1] < 3 or not len(points):
        raise UserError(f"{path} holds an array of shape {points.shape}", allowed=allowed, do="write one row per point")
    points = points[:, :3]
    if not np.abs(points).max() <= 1:  # also where it is not a number
        raise UserError(
            f"{path} has points outside of the cube from -1 to 1",
            allowed="the coordinates of the fields: those of the meshes that wsrl sample and wsrl export write",
            do="subtract the centre of the whole shape's bounding box and divide by the radius that makes it fit",
        )
    return points


def _read(path: Path, kind: str) -> np.ndarray:
    if kind == ".npy":
        return np.load(path, allow_pickle=False)
    if kind == ".xyz":
        return np.loadtxt(path, ndmin=2)
    return trimesh.load(path, process=False).vertices


def show_part(values: np.ndarray, known: np.ndarray) -> Image.Image:
    """A picture of what is known; the unknown part is chequered.

    Args:
        values: Values ``(H, W, C)`` from 0 to 1.
        known: Whether they are known ``(H, W)``.
    """
    colours = np.broadcast_to(values, (*known.shape, 3)) * 255
    down, right = np.indices(known.shape)
    squares = np.where(((down + right) % 2)[..., None], BARE[0], BARE[1])
    return Image.fromarray(np.where(known[..., None], colours, squares).round().astype(np.uint8))


def show_points(points: np.ndarray, size: int) -> Image.Image:
    """A picture of points ``(P, 3)``, each a small octahedron."""
    corners = 0.015 * np.concatenate([np.eye(3), -np.eye(3)])  # (6, 3): +x +y +z -x -y -z
    faces = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    vertices = (points[:, None] + corners).reshape(-1, 3)  # (6 P, 3)
    triangles = 6 * np.arange(len(points))[:, None, None] + faces  # (P, 8, 3)
    return render_mesh(SimpleNamespace(vertices=vertices, faces=triangles.reshape(-1, 3)), size, frame=NORMALISED)
