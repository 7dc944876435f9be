"""Which tensors, layers and factors of a field tell the class: alone, left out, and shuffled.

Letters: N items, V trainable weights.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from wsrl.evaluation.linear_readers import LinearReader
from wsrl.evaluation.probe import Split, best_readers, logistic_probe
from wsrl.evaluation.protocol import Items, Spread
from wsrl.fields.layout import Layout

NUM_SHUFFLES = 5


def columns_of_parts(layout: Layout) -> dict[str, np.ndarray]:
    """Columns of the trainable weights that belong to each part of a field.

    Args:
        layout: Layout of the fields.

    Returns:
        Columns ``(<= V,)`` in the order of ``weight_features``, by part: every tensor by its name, every layer (group)
        with more than one tensor, and as ``*.<last part of the name>`` every factor that several layers have, such as
        ``*.down``.
    """
    parts: dict[str, list[np.ndarray]] = {}
    start = 0
    for spec in layout:
        stop = start + int(spec.trainable().sum())
        for name in (spec.name, spec.group, f"*.{spec.name.rpartition('.')[2]}"):
            parts.setdefault(name, []).append(np.arange(start, stop))
        start = stop
    tensors = {spec.name for spec in layout}
    return {name: np.concatenate(columns) for name, columns in parts.items() if name in tensors or len(columns) > 1}


def importance_scores(items: Items, layout: Layout, seeds: int) -> dict[str, float]:
    """What each tensor, layer and factor is worth: :func:`part_importance` under ``<part>.<measure>``, with spread."""
    scores: dict[str, float] = {}
    for part, measures in part_importance(items, columns_of_parts(layout), seeds).items():
        for measure, spread in measures.items():
            scores |= spread.entries(f"{part}.{measure}")
    return scores


def part_importance(items: Items, parts: Mapping[str, np.ndarray], seeds: int) -> dict[str, dict[str, Spread]]:
    """What a logistic regression reads of each part.

    Args:
        items: Trainable weights ``(N, V)`` and labels.
        parts: Columns by part; parts without columns are left out.
        seeds: Number of seeds: of the inner split, and of the shuffles.

    Returns:
        For each part ``alone``: accuracy from its columns alone; ``left_out``: how much accuracy falls when the
        regression is fitted without them; ``shuffled``: how much it falls when a fitted one sees each test item with
        the columns of another, mean of ``NUM_SHUFFLES`` orders. Differences are in accuracy, positive for a fall.
    """
    measured: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        # The regression on all columns, which what is left out or shuffled is compared with.
        split = items.split()
        whole = best_readers(split.train, split.train_labels, seed, ("logistic",))["logistic"]
        reached = whole.score(split.test, split.test_labels)
        for name, columns in parts.items():
            if not len(columns):
                continue
            rest = np.setdiff1d(np.arange(items.features.shape[1]), columns)
            values = {
                "alone": _accuracy(items, columns, seed),
                "left_out": reached - _accuracy(items, rest, seed),
                "shuffled": reached - _shuffled(whole, split, columns, seed),
            }
            for measure, value in values.items():
                measured.setdefault(name, {}).setdefault(measure, []).append(value)
    return {name: {key: Spread(tuple(values)) for key, values in of.items()} for name, of in measured.items()}


def _accuracy(items: Items, columns: np.ndarray, seed: int) -> float:
    """Accuracy of the logistic probe from some columns; that of the largest class where there is none."""
    if not len(columns):
        largest = np.bincount(items.labels[items.train]).argmax()
        return float(np.mean(items.labels[items.test] == largest))
    return logistic_probe(replace(items, features=items.features[:, columns]).split(), seed)


def _shuffled(reader: LinearReader, split: Split, columns: np.ndarray, seed: int) -> float:
    """Mean accuracy of a fitted reader whose test items have some columns of one another."""
    generator, scores = np.random.default_rng(seed), []
    for _ in range(NUM_SHUFFLES):
        mixed = split.test.copy()
        mixed[:, columns] = split.test[generator.permutation(len(mixed))][:, columns]
        scores.append(reader.score(mixed, split.test_labels))
    return float(np.mean(scores))
