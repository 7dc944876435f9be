"""Contact sheets of pictures: samples beside data, and pictures beside their fields and errors."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wsrl.durable import write_bytes

CELL = 56
"""Side of a picture in a sheet of many, in pixels."""
GAP = 2
MARGIN = 16


def grid_sheet(pictures: Sequence[Image.Image], columns: int, size: int) -> Image.Image:
    """Pictures in rows on white.

    Args:
        pictures: Pictures of any mode.
        columns: Pictures in a row.
        size: Longer side of a cell, in pixels; smaller pictures are enlarged without smoothing.
    """
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (size + GAP) + GAP, rows * (size + GAP) + GAP), "white")
    for i, picture in enumerate(pictures):
        scale = size / max(picture.size)
        sides = tuple(max(1, round(side * scale)) for side in picture.size)
        cell = picture.convert("RGB").resize(sides, Image.Resampling.NEAREST)
        sheet.paste(cell, (GAP + (i % columns) * (size + GAP), GAP + (i // columns) * (size + GAP)))
    return sheet


def beside(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Sheets side by side, each under its title."""
    width = sum(sheet.width + MARGIN for _, sheet in sheets) + MARGIN
    height = max(sheet.height for _, sheet in sheets) + 2 * MARGIN + 12
    page = Image.new("RGB", (width, height), "white")
    draw, left = ImageDraw.Draw(page), MARGIN
    for title, sheet in sheets:
        draw.text((left, 6), title, fill="black")
        page.paste(sheet, (left, MARGIN + 8))
        left += sheet.width + MARGIN
    return page


def error_picture(values: np.ndarray, target: np.ndarray, scale: float = 10.0) -> Image.Image:
    """Absolute error, magnified and inverted: white where there is none.

    Args:
        values: Values ``(H, W, C)`` in [0, 1].
        target: The true values, of the same shape.
        scale: Factor on the error.
    """
    error = np.abs(values - target).mean(axis=-1) * scale
    return Image.fromarray((255 * (1 - error.clip(0, 1))).round().astype(np.uint8))


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    data = BytesIO()
    image.save(data, format="PNG")
    write_bytes(path, data.getvalue())
