"""What a run draws for looking: signals beside their fields, and sampled fields beside signals."""

from collections.abc import Sequence
from pathlib import Path

import torch

from wsrl.diffusion.pipeline import load_pipeline
from wsrl.evaluation.features import signals_of_rows
from wsrl.report.contact_sheet import beside, error_picture, grid_sheet, save_picture
from wsrl.report.render import shape_sheet
from wsrl.signals.pictures.image import values_to_image
from wsrl.store import WeightStore
from wsrl.training.lightning_noise import quiet_lightning

NUM_SHOWN = 64
NUM_COMPARED = 16
MESH_RESOLUTION = 64


def draw_pictures(source, out: Path, *, size: int, seed: int) -> None:
    """Draw ``samples.png`` and ``reconstruction.png`` from the store and the diffusion model of a run.

    Args:
        source: The signals.
        out: Folder of the run.
        size: Longer side of a picture, in pixels.
        seed: Seed of the samples.
    """
    with quiet_lightning():
        pipeline = load_pipeline(str(out / "diffusion"))
    with WeightStore.open(out / "fields") as store:
        rows = list(range(0, len(store), max(1, len(store) // NUM_SHOWN))[:NUM_SHOWN])  # spread over the store
        draw = _draw_shapes if source.form.is_shape else _draw_images
        draw(source, store, rows, pipeline, torch.Generator().manual_seed(seed), out, size)


def _draw_images(source, store, rows, pipeline, generator, out: Path, size: int) -> None:
    samples = pipeline(NUM_SHOWN, generator=generator)
    signals = list(signals_of_rows(store, source, rows))
    real = [values_to_image(signal.values, source.form.grid) for signal in signals]
    smooth = [field.image(size) for field in samples.fields]
    sheets = [
        (f"{NUM_SHOWN} sampled fields", grid_sheet(smooth, 8, size)),
        (f"{len(real)} signals of {source.name}", grid_sheet(real, 8, size)),
    ]
    save_picture(beside(sheets), out / "samples.png")
    save_reconstructions(source, store, rows[:NUM_COMPARED], out / "reconstruction.png", size=size)


def save_reconstructions(source, store: WeightStore, rows: Sequence[int], path: Path, *, size: int) -> None:
    """Draw pictures beside their fields and errors.

    Args:
        source: Pictures.
        store: Their fields.
        rows: Rows of the store that are drawn.
        path: PNG file.
        size: Longer side of a cell, in pixels; fields are also drawn that large where that is more than their grid has.
    """
    cells, shape = [], (*source.form.grid, source.form.out_features)
    enlarged = size > max(source.form.grid)
    for row, signal in zip(rows, signals_of_rows(store, source, rows)):
        field = store.field(row)
        values = field(signal.coords)
        on_grid = [values_to_image(each, source.form.grid) for each in (signal.values, values.clamp(0, 1))]
        error = error_picture(values.reshape(shape).numpy(), signal.values.reshape(shape).numpy())
        cells += [*on_grid, *([field.image(size)] if enlarged else []), error]
    names = (
        "picture",
        "field on its grid",
        *([f"field at {size} pixels"] if enlarged else []),
        "error x10 (white: none)",
    )
    save_picture(beside([(", ".join(names), grid_sheet(cells, 2 * len(names), size))]), path)


def _draw_shapes(source, store, rows, pipeline, generator, out: Path, size: int) -> None:
    samples = pipeline(NUM_SHOWN, generator=generator)
    sampled = [field.mesh(MESH_RESOLUTION) for field in samples.fields]
    position = {signal_id: index for index, signal_id in enumerate(source.ids)}
    originals = [source.mesh(position[store.id_of(row)]) for row in rows]
    sheets = [
        (f"{NUM_SHOWN} sampled fields", shape_sheet(sampled, columns=8, size=size)),
        (f"{len(originals)} shapes of {source.name}", shape_sheet(originals, columns=8, size=size)),
    ]
    save_picture(beside(sheets), out / "samples.png")
    pairs = []
    for row, original in list(zip(rows, originals))[:: max(1, len(rows) // NUM_COMPARED)]:
        pairs += [original, store.field(row).mesh(2 * MESH_RESOLUTION)]
    titles = "shape and field, in turn"
    save_picture(beside([(titles, shape_sheet(pairs, columns=8, size=size))]), out / "reconstruction.png")
