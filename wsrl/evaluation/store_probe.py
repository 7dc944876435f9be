"""What plain readers find in the weights of a store, and by the same protocol in pixels or shapes.

Letters: N items, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from wsrl.errors import UserError
from wsrl.evaluation.features import labelled_rows
from wsrl.evaluation.importance import importance_scores
from wsrl.evaluation.labelled_fields import LabelledFields, signal_kind
from wsrl.evaluation.maps import TSNE_AXES, draw_map, in_unit_square, pca_map, spaced_points, tsne_map
from wsrl.evaluation.probe import PROBES, logistic_probe, one_nn
from wsrl.evaluation.protocol import Protocol, label_efficiency
from wsrl.fields.gauge import CANONICAL, GAUGES, RAW
from wsrl.options import at_least, check, one_of, option
from wsrl.progress import ShowProgress, say, silent
from wsrl.report.figures import new_figure, save_figure
from wsrl.report.render import field_picture
from wsrl.store import WeightStore
from wsrl.store.source import find_store_source

LIMIT = 10_000
COUNTS = (1, 5, 10, 100)
MAPPED = 2000
PICTURE = 64
PICTURE_SHARE = 0.045


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What is read from a store.

    Attributes:
        limit: Most fields of the train and of the test part.
        seeds: Number of times that readers are scored.
        folds: Test every field once in so many folds, drawn by each seed; None tests on the test part.
        label_efficiency: Also accuracies from ``COUNTS`` labelled fields per class.
        importance: Also what each tensor, layer and factor is worth.
        maps: Folder for maps of up to ``MAPPED`` fields, ``pca.png`` and ``tsne.png``; None draws none.
        data: What the store was built from; None where the manifest knows it.
        gauge: ``raw``, or ``canonical``: also weights in the form of :mod:`wsrl.fields.gauge`, under ``canonical_``;
            importance and maps are then of these.
        seed: Seed of the split where the store has none, and of maps.

    Raises:
        UserError: An option is out of range.
    """

    limit: int = option(LIMIT, at_least(1))
    seeds: int = option(1, at_least(1))
    folds: int | None = option(None, at_least(2))
    label_efficiency: bool = False
    importance: bool = False
    maps: str | None = None
    data: str | None = None
    gauge: str = option(RAW, one_of(*GAUGES))
    seed: int = 0

    def __post_init__(self):
        check(self)


def probe_store(path: Path | str, options: ProbeOptions, *, progress: ShowProgress = silent) -> dict[str, float]:
    """Every reader on weights and, by the same protocol, on pixels or D2 histograms.

    Args:
        path: The store.
        options: What is read, and how often.
        progress: Takes lines that say where maps were drawn.

    Raises:
        UserError: The store has fewer than two classes, or an option does not fit it.
    """
    protocol = Protocol(seeds=options.seeds, folds=options.folds)
    with WeightStore.open(path) as store:
        fields = read_fields(store, options)
        weights = fields["weights"]
        check_folds(weights.labels, protocol.folds)
        metrics: dict[str, float] = {"num_train": len(weights.train), "num_test": len(weights.test)}
        metrics["largest_class"] = weights.largest_class
        for kind, items in fields.items():
            metrics |= {f"{kind}_{key}": value for key, value in reader_scores(items, protocol, options.seed).items()}
        if options.label_efficiency:
            for kind, items in fields.items():
                for count, spread in label_efficiency(items, protocol.seeds, COUNTS).items():
                    metrics |= spread.entries(f"{kind}_label_efficiency.{count}")
        if options.importance:
            scores = importance_scores(fields.get(CANONICAL, weights), store.layout, protocol.seeds)
            metrics |= {f"importance.{key}": value for key, value in scores.items()}
        if options.maps:
            draw_maps(store, fields.get(CANONICAL, weights), Path(options.maps), options.seed, progress)
    return metrics


def read_fields(store: WeightStore, options: ProbeOptions) -> dict[str, LabelledFields]:
    """The labelled fields by their weights and, where the source is known, by the pixels or D2 of their signals.

    Raises:
        UserError: The weights are asked for in canonical gauge too, which they do not have.
    """
    source = find_store_source(store, options.data)
    parts = labelled_rows(store, options.seed, options.limit)
    kinds = ("weights", *(() if options.gauge == RAW else (options.gauge,)))
    kinds += () if source is None else (signal_kind(store),)
    return {kind: LabelledFields.read(store, parts, kind, source, options.seed) for kind in kinds}


def check_folds(labels: np.ndarray, folds: int | None) -> None:
    """Refuse more folds than the smallest class has fields."""
    least = np.unique(labels, return_counts=True)[1].min()
    if folds is not None and folds > least:
        raise UserError(
            f"folds is {folds}, and the smallest class has {least} fields",
            allowed=f"from 2 to {least}" if least > 1 else "no folds with a class of one",
            do="choose another folds, or leave it out",
        )


def reader_scores(items: LabelledFields, protocol: Protocol, seed: int) -> dict[str, float]:
    """All scores of one kind of features; with one seed as plain numbers, else with spread."""
    split = items.split()
    metrics = {"accuracy": logistic_probe(split, seed), "one_nn": one_nn(split)}
    probes = [key for key in PROBES if key != "logistic" or protocol.seeds > 1 or protocol.folds]  # it is `accuracy`
    spreads = items.spreads(protocol, probes)
    spreads["one_nn_cosine"] = spreads.pop("one_nn")
    for key, spread in spreads.items():
        metrics |= spread.entries(key) if protocol.seeds > 1 else {key: spread.mean}
    return metrics | items.precision()


def draw_maps(store: WeightStore, items: LabelledFields, out: Path, seed: int, progress: ShowProgress = silent) -> None:
    """Draw ``pca.png`` and ``tsne.png`` of some of the fields, with pictures of the fields themselves."""
    some = np.sort(np.random.default_rng(seed).permutation(len(items.rows))[:MAPPED])
    features, rows = items.features[some], items.rows[some]
    components, shares = pca_map(features)
    pca_names = [f"component {i + 1} ({share:.1%} of the variance)" for i, share in enumerate(shares)]
    maps = {"pca": (components, pca_names), "tsne": (tsne_map(features, seed), TSNE_AXES)}
    title = f"{len(rows)} fields of {store.directory.name} by their weights"
    for name, (points, axis_names) in maps.items():
        figure, axis = new_figure(width=7, height=7)
        draw_fields(axis, store, rows, points, PICTURE_SHARE, title=title, axis_names=axis_names)
        save_figure(figure, out / f"{name}.png")
        say(progress, f"drawn: {out / f'{name}.png'}")


def draw_fields(
    axis: Axes,
    store: WeightStore,
    rows: np.ndarray,
    points: np.ndarray,
    side: float,
    *,
    title: str,
    axis_names: Sequence[str],
    finish: Callable[[Image.Image], Image.Image] = lambda picture: picture,
) -> None:
    """Draw a map of fields with pictures of as many of them as have room.

    Args:
        axis: Where to draw.
        store: The store.
        rows: Rows of the fields ``(N,)``.
        points: Their coordinates ``(N, 2)``, in any unit.
        side: Side of a picture, as a share of that of the map.
        title: Title of the panel.
        axis_names: What lies along both axes, with the unit.
        finish: What is done to each picture before it is drawn.
    """
    points = in_unit_square(points)
    pictures = {i: finish(picture_of(store, int(rows[i]))) for i in spaced_points(points, side).tolist()}
    labels = store.labels()[rows]
    draw_map(axis, points, pictures, side, labels, store.label_names, title=title, axis_names=axis_names)


def picture_of(store: WeightStore, row: int) -> Image.Image:
    """What a field shows: its picture, or its shaded mesh."""
    return field_picture(store.field(row), PICTURE if store.form.is_shape else PICTURE // 2, frame=None)
