"""How well the fields of a store reproduce their signals: what was recorded, fields evaluated anew, and surfaces.

Letters: K scored shapes.
"""

from dataclasses import dataclass
from pathlib import Path

from wsrl.encoders.autoencoder import open_autoencoder
from wsrl.errors import UserError
from wsrl.evaluation.features import heldout_rows, some_rows
from wsrl.evaluation.reconstruction import recomputed, reconstructed, recorded
from wsrl.evaluation.shape_reconstruction import score_fields, summarise_scores
from wsrl.evaluation.shapes import DIAGONAL, SURFACE_POINTS, THRESHOLD
from wsrl.options import at_least, check, option
from wsrl.progress import ShowProgress, say, silent
from wsrl.signals.shapes.soup import NORMALISED_RADIUS
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.store.source import find_store_source, open_store_source

NUM_SHAPES = 200


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions:
    """What is scored of a store.

    Attributes:
        recompute: Fields that are evaluated anew and compared with the record.
        autoencoder: Folder of an autoencoder after which the fields of the test split are scored too; None for none.
        shapes: Shapes that are meshed and scored; None for ``NUM_SHAPES`` where the data can be opened.
        resolution: Cells of the grid along a side of the cube.
        points: Points on either surface, at most what a signal has.
        data: What the store was built from; None where the manifest knows it.
        seed: Seed of the choice of fields, and of the points.

    Raises:
        UserError: An option is out of range.
    """

    recompute: int = option(0, at_least(0))
    autoencoder: str | None = None
    shapes: int | None = option(None, at_least(0))
    resolution: int = option(128, at_least(1))
    points: int = option(SURFACE_POINTS, at_least(1))
    data: str | None = None
    seed: int = 0

    def __post_init__(self):
        check(self)


def score_store(
    path: Path | str, options: ReconstructionOptions, *, progress: ShowProgress = silent
) -> dict[str, float]:
    """Summaries of the recorded metrics, of fields evaluated anew, and of the surfaces of shapes.

    Args:
        path: The store.
        options: What is scored.
        progress: Shows how many shapes are scored, and takes lines on what their scores are taken on.

    Raises:
        UserError: Surfaces are asked of pictures, or the data cannot be opened.
    """
    with WeightStore.open(path) as store:
        metrics = recorded(store)
        if options.recompute > 0 and len(store):
            rows = some_rows(store, options.recompute, options.seed)
            metrics |= recomputed(store, open_store_source(store, options.data), rows)
        if not store.form.is_shape:
            if options.shapes:
                wrong = f"--shapes is given, but {path} holds pictures"
                raise UserError(wrong, allowed="a store of shapes", do="leave it out")
            if options.autoencoder and len(store):
                through = open_autoencoder(options.autoencoder, store.layout)
                source = open_store_source(store, options.data)
                metrics |= reconstructed(store, source, through, heldout_rows(store))
        elif len(store):
            metrics |= surface_scores(store, options, progress)
    return metrics


def surface_scores(
    store: WeightStore, options: ReconstructionOptions, progress: ShowProgress = silent
) -> dict[str, float]:
    """Scores of the surfaces of some fields of a store of shapes, and of the same fields after an autoencoder."""
    num = NUM_SHAPES if options.shapes is None else options.shapes
    if num == 0:
        return {}
    source = find_store_source(store, options.data)
    if source is None and options.shapes is None:
        say(progress, "no scores of surfaces: give the data of the store with --data")
        return {}
    source = source or open_store_source(store, options.data)
    passes, rows = {"": None}, some_rows(store, num, options.seed)
    if options.autoencoder:  # training fields say nothing of an autoencoder
        passes["autoencoder_"] = open_autoencoder(options.autoencoder, store.layout)
        rows = heldout_rows(store)
        rows = rows[some_rows(rows, num, options.seed)]
    # The same shapes as they are stored and, where asked for, through the autoencoder.
    grid = {"resolution": options.resolution, "num_points": _num_points(source, options)}
    metrics: dict[str, float] = dict(grid)
    with progress("shapes scored", len(rows) * len(passes)) as shown:
        for prefix, through in passes.items():
            scores = score_fields(store, source, rows, **grid, seed=options.seed, shown=shown, through=through)
            summary = summarise_scores(scores, store.splits()[rows])
            metrics |= {_prefixed(prefix, name): value for name, value in summary.items()}
    say(progress, about_scores(**grid))
    return metrics


def _num_points(source: Source, options: ReconstructionOptions) -> int:
    return min(options.points, source.options.num_surface)


def _prefixed(prefix: str, name: str) -> str:
    """A dotted key with a prefix on its last part."""
    *path, last = name.split(".")
    return ".".join([*path, prefix + last])


def about_scores(resolution: int, num_points: int) -> str:
    """What the scores of surfaces are taken on and what they mean, in a few lines."""
    return (
        f"Normalisation: centre of the bounding box at the origin, farthest vertex at radius {NORMALISED_RADIUS}.\n"
        f"Meshes on {resolution} cells along a side of the cube [-1, 1]^3, {num_points} points on either surface.\n"
        "chamfer_l1: mean Euclidean distance to the nearest point of the other surface; chamfer_l2_squared: mean of\n"
        "its square; both averaged over the two directions, as are the absolute cosines of normal_consistency.\n"
        f"f_score: at {THRESHOLD:g}, 1% of the cube's side; with so many points, at most f_score_ceiling.\n"
        "iou: of the field itself at held-out points, uniform in the cube.\n"
        f"An empty mesh counts with the worst there is: chamfer_l1 {DIAGONAL:.3f}, chamfer_l2_squared "
        f"{DIAGONAL**2:.0f}, f_score and normal_consistency 0."
    )
