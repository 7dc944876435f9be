"""What plain readers find in the weights of a store, and by the same protocol in pixels or shapes.

Letters: N items, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wsrl.errors import UserError
from wsrl.evaluation.clustering import cluster_scores
from wsrl.evaluation.features import d2_features, labelled_rows, pixel_features, weight_features
from wsrl.evaluation.importance import columns_of_parts, part_importance
from wsrl.evaluation.maps import draw_map, in_unit_square, pca_map, spaced_places, tsne_map
from wsrl.evaluation.probe import logistic_probe, one_nn
from wsrl.evaluation.protocol import PROBES, Protocol, label_efficiency, precision_by_class, probe_scores
from wsrl.fields.gauge import CANONICAL, GAUGES, RAW
from wsrl.options import at_least, check, one_of, option
from wsrl.progress import ShowProgress, say, silent
from wsrl.report.figures import new_figure, save_figure
from wsrl.report.render import render_mesh
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.store.source import find_store_source

LIMIT = 10_000
COUNTS = (1, 5, 10, 100)
NEIGHBOURS, MAPPED = 8, 2000
PICTURE, MESH_RESOLUTION = 64, 48
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


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of some fields and what is known of them.

    Attributes:
        features: Features ``(N, F)`` by name: ``weights``, ``canonical`` where they are asked for in that gauge, and
            ``pixels`` or ``d2`` where the source is known.
        rows: Rows of the store, sorted.
        labels: Class indices ``(N,)``.
        train: Places of the training part.
        test: Places of the test part.
        label_names: Names of the classes.
    """

    features: dict[str, np.ndarray]
    rows: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    label_names: Sequence[str]

    @classmethod
    def read(
        cls, store: WeightStore, source: Source | None, seed: int, limit: int | None = None, gauge: str = RAW
    ) -> "LabelledFeatures":
        """The features of the labelled fields of a store.

        Args:
            store: The store.
            source: Its source; None leaves pixels and D2 histograms out.
            seed: Seed of the split where the store has none, of the limit and of D2's pairs of points.
            limit: Most fields of each part; None keeps all.
            gauge: ``canonical`` reads the weights in that gauge as well.

        Raises:
            UserError: The fields have no canonical gauge.
        """
        parts = labelled_rows(store, seed, limit)
        rows = np.sort(np.concatenate([parts.train, parts.test]))
        features = {"weights": weight_features(store, rows).numpy()}
        if gauge == CANONICAL:
            features[CANONICAL] = weight_features(store, rows, gauge).numpy()
        if source is not None and store.form.is_shape:
            features["d2"] = d2_features(store, source, rows, seed).numpy()
        elif source is not None:
            features["pixels"] = pixel_features(store, source, rows).numpy()
        train, test = np.searchsorted(rows, parts.train), np.searchsorted(rows, parts.test)
        return cls(features, rows, parts.labels[rows], train, test, store.label_names)

    @property
    def weights(self) -> np.ndarray:
        """Weights ``(N, F)`` in the gauge that was asked for."""
        return self.features.get(CANONICAL, self.features["weights"])

    @property
    def largest_class(self) -> float:
        """Share of the largest class of the test part: the accuracy of a reader that has learned nothing."""
        return float(np.unique(self.labels[self.test], return_counts=True)[1].max() / len(self.test))

    def check_folds(self, folds: int | None) -> None:
        """Refuse more folds than the smallest class has fields."""
        least = np.unique(self.labels, return_counts=True)[1].min()
        if folds is not None and folds > least:
            raise UserError(
                f"folds is {folds}, and the smallest class has {least} fields",
                allowed=f"from 2 to {least}" if least > 1 else "no folds with a class of one",
                do="choose another folds, or leave it out",
            )


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
        source = find_store_source(store, options.data)
        items = LabelledFeatures.read(store, source, options.seed, options.limit, options.gauge)
        items.check_folds(protocol.folds)
        metrics: dict[str, float] = {"num_train": len(items.train), "num_test": len(items.test)}
        metrics["largest_class"] = items.largest_class
        for name in items.features:
            found = feature_scores(name, items, protocol, options.seed)
            metrics |= {f"{name}_{key}": value for key, value in found.items()}
        if options.label_efficiency:
            metrics |= efficiency_curves(items, protocol.seeds)
        if options.importance:
            metrics |= importance_scores(store, items, protocol.seeds)
        if options.maps:
            draw_maps(store, items, Path(options.maps), options.seed, progress)
    return metrics


def feature_scores(name: str, items: LabelledFeatures, protocol: Protocol, seed: int) -> dict[str, float]:
    """All scores of one kind of features; with one seed as plain numbers, else with spread."""
    features, labels = items.features[name], items.labels
    whole = features[items.train], labels[items.train], features[items.test], labels[items.test]
    metrics = {"accuracy": logistic_probe(*whole, seed), "one_nn": one_nn(*whole)}
    probes = [key for key in PROBES if key != "logistic" or protocol.seeds > 1 or protocol.folds]  # it is `accuracy`
    spreads = probe_scores(features, labels, items.train, items.test, protocol, probes)
    spreads |= cluster_scores(features, labels, protocol.seeds)
    spreads["one_nn_cosine"] = spreads.pop("one_nn")
    for key, spread in spreads.items():
        metrics |= spread.entries(key) if protocol.seeds > 1 else {key: spread.mean}
    return metrics | precision_scores(features, items)


def precision_scores(features: np.ndarray, items: LabelledFeatures) -> dict[str, float]:
    """Share of the nearest training fields that are of the class of a test field: over all, and for each class."""
    if len(items.train) <= NEIGHBOURS:
        return {}
    mean, by_class = precision_by_class(features, items.labels, items.train, items.test, NEIGHBOURS)
    key = f"precision_at_{NEIGHBOURS}"
    return {key: mean} | {f"{key}.{items.label_names[number]}": value for number, value in by_class.items()}


def efficiency_curves(items: LabelledFeatures, seeds: int) -> dict[str, float]:
    """Accuracy of the logistic regression by the number of labelled fields of each class."""
    metrics: dict[str, float] = {}
    for name, features in items.features.items():
        curve = label_efficiency(features, items.labels, items.train, items.test, seeds, COUNTS)
        for count, spread in curve.items():
            metrics |= spread.entries(f"{name}_label_efficiency.{count}")
    return metrics


def importance_scores(store: WeightStore, items: LabelledFeatures, seeds: int) -> dict[str, float]:
    """What each tensor, layer and factor is worth for the logistic regression."""
    parts = columns_of_parts(store.layout)
    measured = part_importance(items.weights, items.labels, items.train, items.test, parts, seeds)
    metrics: dict[str, float] = {}
    for part, values in measured.items():
        for measure, spread in values.items():
            metrics |= spread.entries(f"importance.{part}.{measure}")
    return metrics


def draw_maps(
    store: WeightStore, items: LabelledFeatures, out: Path, seed: int, progress: ShowProgress = silent
) -> None:
    """Draw ``pca.png`` and ``tsne.png`` of some of the fields, with pictures of the fields themselves."""
    some = np.sort(np.random.default_rng(seed).permutation(len(items.rows))[:MAPPED])
    features, rows, labels = items.weights[some], items.rows[some], items.labels[some]
    components, shares = pca_map(features)
    tsne_names = ("t-SNE, first coordinate (no unit)", "t-SNE, second coordinate (no unit)")
    pca_names = [f"component {i + 1} ({share:.1%} of the variance)" for i, share in enumerate(shares)]
    maps = {"pca": (components, pca_names), "tsne": (tsne_map(features, seed), tsne_names)}
    for name, (points, axis_names) in maps.items():
        points = in_unit_square(points)
        pictures = {place: picture_of(store, int(rows[place])) for place in spaced_places(points, PICTURE_SHARE)}
        figure, axis = new_figure(width=7, height=7)
        title = f"{len(rows)} fields of {store.directory.name} by their weights"
        draw_map(axis, points, pictures, PICTURE_SHARE, labels, store.label_names, title=title, axis_names=axis_names)
        save_figure(figure, out / f"{name}.png")
        say(progress, f"drawn: {out / f'{name}.png'}")


def picture_of(store: WeightStore, row: int) -> Image.Image:
    """What a field shows: its picture, or its shaded mesh."""
    field = store.field(row)
    return render_mesh(field.mesh(MESH_RESOLUTION), PICTURE) if field.form.is_shape else field.image(PICTURE // 2)
