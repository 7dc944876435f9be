"""A sheet of the samples that are nearest to training fields, each beside what it is near."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.progress import ShowProgress, say, silent
from wsrl.report.contact_sheet import CELL, beside, grid_sheet, save_picture
from wsrl.report.render import field_picture

CLOSEST, COLUMNS = 32, 8
Weights = dict[str, Tensor]


def draw_closest(
    samples, weights: Weights, train: Weights, decoder: FieldDecoder, out: Path, progress: ShowProgress = silent
) -> None:
    """Draw the closest pairs by weights and by signals; where no sample has a neighbour, nothing is written.

    Args:
        samples: What is known of the samples, a ``Judged``.
        weights: The samples ``(N, *shape)``.
        train: Training fields ``(M, *shape)``.
        decoder: What renders both.
        out: PNG file to write.
        progress: Takes a line that says where it is.
    """
    sheets = []
    for what, nearest in (("weights", samples.in_weights), ("signals", samples.in_signals)):
        rows = nearest.closest(CLOSEST)
        pairs = list(zip(rows.tolist(), nearest.indices[rows].tolist()))
        if pairs:
            sheets.append((f"closest by {what}: sample, training field", pair_sheet(pairs, weights, train, decoder)))
    if sheets:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_picture(beside(sheets), out)
        say(progress, f"closest pairs: {out}")


def pair_sheet(pairs: list[tuple[int, int]], weights: Weights, train: Weights, decoder: FieldDecoder) -> Image.Image:
    """Samples and training fields in turn, four pairs in a row."""
    fields = [
        decoder.field({name: tensor[i] for name, tensor in fields.items()})
        for sample, row in pairs
        for fields, i in ((weights, sample), (train, row))
    ]
    size = 2 * CELL if fields[0].form.is_shape else CELL
    return grid_sheet([field_picture(field, size) for field in fields], COLUMNS, size)
