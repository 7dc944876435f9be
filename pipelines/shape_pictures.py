"""Originals beside what each kind makes of them, as one shaded sheet."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from PIL import Image

from wsrl.report.contact_sheet import CELL, save_picture
from wsrl.report.render import shape_sheet
from wsrl.signals.source import Source
from wsrl.store import WeightStore

NUM_COLOURS = 128  # a shaded sheet of so many is a fourth of the size, and looks the same


def draw_shapes(
    source: Source, out: Path, kinds: Sequence[str], num_shown: int, resolution: int, picture: str | None
) -> None:
    """Draw some shapes, one column each: the original, then the mesh of its field of each kind.

    Args:
        source: The shapes.
        out: Folder of the stores; ``shapes.png`` is written there.
        kinds: Names of the stores, each with a field of every usable shape.
        num_shown: Number of shapes.
        resolution: Cells of the meshes' grid along a side.
        picture: Another file to write, with few colours; None for none.
    """
    stores = {name: WeightStore.open(out / name) for name in kinds}
    known = set.intersection(*(set(store.ids) for store in stores.values()))
    shown = over_classes([i for i, name in enumerate(source.ids) if name in known], source.labels(), num_shown)
    rows = [[source.mesh(index) for index in shown]]
    rows += [[store.field(source.ids[i]).mesh(resolution) for i in shown] for store in stores.values()]
    for store in stores.values():
        store.close()
    titles = [source.labels()[index] or "" for index in shown]
    titles += [name if i == 0 else "" for name in kinds for i in range(len(shown))]
    sheet = shape_sheet(list(chain(*rows)), columns=len(shown), size=2 * CELL, titles=titles)
    save_picture(sheet, out / "shapes.png")
    if picture is not None:
        save_picture(sheet.quantize(NUM_COLOURS, dither=Image.Dither.NONE), Path(picture))


def over_classes(indices: Sequence[int], labels: Sequence[str | None], number: int) -> list[int]:
    """So many of the indices, as evenly over the classes as it goes, the first ones of each.

    Args:
        indices: Where to choose from.
        labels: Class names, by index.
        number: How many.
    """
    groups = defaultdict(list)
    for index in indices:
        groups[labels[index]].append(index)
    turns = chain(*zip_longest(*(groups[label] for label in sorted(groups, key=str))))
    return sorted([index for index in turns if index is not None][:number])
