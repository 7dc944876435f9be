"""``wsrl eval probe``: what plain readers find in weights, and by the same protocol in pixels or shapes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsrl.cli.display import say
from wsrl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from wsrl.store import WeightStore

LIMIT = 10_000
COUNTS = (1, 5, 10, 100)
NEIGHBOURS, MAPPED = 8, 2000
PICTURE, MESH_RESOLUTION = 64, 48
PICTURE_SHARE = 0.045


def add_arguments(action: argparse.ArgumentParser) -> None:
    """Add the options of ``wsrl eval probe``."""
    add = action.add_argument
    action.epilog = (
        "Of weights and of pixels (shapes: D2 histograms): accuracy of a logistic regression, a linear SVM, the "
        "nearest neighbour (Euclidean; by cosine about the mean) and a vote of k, all chosen inside the training part; "
        f"agreement of k-means with the classes (ARI, NMI), silhouettes, and precision at {NEIGHBOURS} of test fields."
    )
    add("--limit", type=int, default=LIMIT, help="most fields of the train and of the test part")
    add("--seeds", type=int, default=1, metavar="K", help="score K times, and tell mean and deviation: see --folds")
    add(
        "--folds", type=int, metavar="K",
        help="test every field once, in K folds that each seed draws anew: for few fields; else each of several seeds "
        "draws nine tenths of the training part",
    )  # fmt: skip
    add("--label-efficiency", action="store_true", help=f"also accuracies from {COUNTS} labelled fields per class")
    add("--importance", action="store_true", help="also what each tensor, layer and factor is worth: takes minutes")
    add("--maps", metavar="DIR", help=f"draw PCA and t-SNE maps of up to {MAPPED} fields as DIR/pca.png, DIR/tsne.png")


@dataclass(frozen=True)
class Given:
    """Features of some fields and what is known of them.

    Attributes:
        features: Features ``(N, F)`` by name: ``weights``, and ``pixels`` or ``d2`` where the source is known.
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


def probe(options: argparse.Namespace) -> tuple[str, dict]:
    """Every reader on weights and, by the same protocol, on pixels or D2 histograms."""
    from wsrl.cli.eval import positive
    from wsrl.evaluation.protocol import Protocol
    from wsrl.store import WeightStore
    from wsrl.store.source import find_store_source

    protocol = Protocol(seeds=positive(options.seeds, "--seeds"), folds=options.folds)
    with WeightStore.open(options.path) as store:
        source = find_store_source(store, options.data)
        given = read(store, source, options.seed, positive(options.limit, "--limit"))
        check_folds(given, protocol.folds)
        metrics: dict[str, float] = {"num_train": len(given.train), "num_test": len(given.test)}
        metrics["largest_class"] = largest_class(given)
        for name in given.features:
            metrics |= {f"{name}_{key}": value for key, value in scores(name, given, protocol, options.seed).items()}
        if options.label_efficiency:
            metrics |= curves(given, protocol.seeds)
        if options.importance:
            metrics |= importances(store, given, protocol.seeds)
        if options.maps:
            draw_maps(store, given, Path(options.maps), options.seed)
    return "probe", metrics


def read(store: WeightStore, source, seed: int, limit: int | None = None) -> Given:
    """The features of the labelled fields of a store.

    Args:
        store: The store.
        source: Its source; None leaves pixels and D2 histograms out.
        seed: Seed of the split where the store has none, of the limit and of D2's pairs of points.
        limit: Most fields of each part; None keeps all.
    """
    import numpy as np

    from wsrl.evaluation.features import d2_features, labelled_rows, pixel_features, weight_features

    parts = labelled_rows(store, seed, limit)
    rows = np.sort(np.concatenate([parts.train, parts.test]))
    features = {"weights": weight_features(store, rows).numpy()}
    if source is not None and store.form.is_shape:
        features["d2"] = d2_features(store, source, rows, seed).numpy()
    elif source is not None:
        features["pixels"] = pixel_features(store, source, rows).numpy()
    train, test = np.searchsorted(rows, parts.train), np.searchsorted(rows, parts.test)
    return Given(features, rows, parts.labels[rows], train, test, store.label_names)


def largest_class(given: Given) -> float:
    """Share of the largest class of the test part: the accuracy of a reader that has learned nothing."""
    import numpy as np

    return float(np.unique(given.labels[given.test], return_counts=True)[1].max() / len(given.test))


def check_folds(given: Given, folds: int | None) -> None:
    """Refuse more folds than the smallest class has fields."""
    import numpy as np

    least = np.unique(given.labels, return_counts=True)[1].min()
    if folds is not None and folds > least:
        raise UserError(
            f"--folds is {folds}, and the smallest class has {least} fields",
            allowed=f"from 2 to {least}" if least > 1 else "no folds with a class of one",
            do="choose another --folds, or leave it out",
        )


def scores(name: str, given: Given, protocol, seed: int) -> dict[str, float]:
    """All scores of one kind of features; with one seed as plain numbers, else with spread."""
    from wsrl.evaluation.clustering import cluster_scores
    from wsrl.evaluation.probe import logistic_probe, one_nn
    from wsrl.evaluation.protocol import PROBES, probe_scores

    features, labels = given.features[name], given.labels
    whole = features[given.train], labels[given.train], features[given.test], labels[given.test]
    found = {"accuracy": logistic_probe(*whole, seed), "one_nn": one_nn(*whole)}
    probes = [key for key in PROBES if key != "logistic" or protocol.seeds > 1 or protocol.folds]  # it is `accuracy`
    spreads = probe_scores(features, labels, given.train, given.test, protocol, probes)
    spreads |= cluster_scores(features, labels, protocol.seeds)
    spreads["one_nn_cosine"] = spreads.pop("one_nn")
    for key, spread in spreads.items():
        found |= spread.entries(key) if protocol.seeds > 1 else {key: spread.mean}
    return found | precision(features, given)


def precision(features: np.ndarray, given: Given) -> dict[str, float]:
    """Share of the nearest training fields that are of the class of a test field: over all, and for each class."""
    from wsrl.evaluation.protocol import precision_by_class

    if len(given.train) <= NEIGHBOURS:
        return {}
    mean, by_class = precision_by_class(features, given.labels, given.train, given.test, NEIGHBOURS)
    key = f"precision_at_{NEIGHBOURS}"
    return {key: mean} | {f"{key}.{given.label_names[number]}": value for number, value in by_class.items()}


def curves(given: Given, seeds: int) -> dict[str, float]:
    """Accuracy of the logistic regression by the number of labelled fields of each class."""
    from wsrl.evaluation.protocol import label_efficiency

    found: dict[str, float] = {}
    for name, features in given.features.items():
        curve = label_efficiency(features, given.labels, given.train, given.test, seeds, COUNTS)
        for count, spread in curve.items():
            found |= spread.entries(f"{name}_label_efficiency.{count}")
    return found


def importances(store: WeightStore, given: Given, seeds: int) -> dict[str, float]:
    """What each tensor, layer and factor is worth for the logistic regression."""
    from wsrl.evaluation.importance import columns_of_parts, importance

    parts = columns_of_parts(store.layout)
    measured = importance(given.features["weights"], given.labels, given.train, given.test, parts, seeds)
    found: dict[str, float] = {}
    for part, values in measured.items():
        for measure, spread in values.items():
            found |= spread.entries(f"importance.{part}.{measure}")
    return found


def draw_maps(store: WeightStore, given: Given, out: Path, seed: int) -> None:
    """Draw ``pca.png`` and ``tsne.png`` of some of the fields, with pictures of the fields themselves."""
    import numpy as np

    from wsrl.evaluation.maps import draw_map, in_unit_square, pca_map, spaced_places, tsne_map
    from wsrl.report.figures import new_figure, save_figure

    some = np.sort(np.random.default_rng(seed).permutation(len(given.rows))[:MAPPED])
    features, rows, labels = given.features["weights"][some], given.rows[some], given.labels[some]
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
        say(f"drawn: {out / f'{name}.png'}")


def picture_of(store: WeightStore, row: int):
    """What a field shows: its picture, or its shaded mesh."""
    from wsrl.report.render import render_mesh

    field = store.field(row)
    return render_mesh(field.mesh(MESH_RESOLUTION), PICTURE) if field.form.is_shape else field.image(PICTURE // 2)
