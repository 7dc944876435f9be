"""Fields before and after an edit, as one sheet of pictures."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from wsrl.report.contact_sheet import CELL, beside, grid_sheet, save_picture

NUM_COLOURS = 64
COLUMNS = 2


def draw_edits(
    shown: dict[str, Tensor], targets: Tensor, grid: tuple[int, int], num: int, out: Path, picture: str | None
) -> None:
    """Draw the first fields: as they are, the targets, and what every editor makes of them.

    Args:
        shown: Values ``(N, P, C)`` by the name of their row; the first row is the fields as they are.
        targets: Values ``(N, P, C)`` that they should take.
        grid: Height and width in pixels.
        num: Number of fields.
        out: ``sheet.png`` is written there.
        picture: Another file to write, with few colours; None for none.
    """
    (first, before), *after = shown.items()
    rows = [(first, before), ("target", targets), *after]
    sheet = beside([(name, grid_sheet(_pictures(values[:num], grid), COLUMNS, CELL)) for name, values in rows])
    save_picture(sheet, out / "sheet.png")
    if picture is not None:
        save_picture(sheet.quantize(NUM_COLOURS, dither=Image.Dither.NONE), Path(picture))


def _pictures(values: Tensor, grid: tuple[int, int]) -> list[Image.Image]:
    pixels = (values.clamp(0, 1) * 255).round().numpy().astype(np.uint8).reshape(len(values), *grid, -1)
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]
