"""How a score is taken several times: fixed splits, one per seed, and the mean and spread over them.

The seeds alone decide the splits, so that every kind of features is scored on the same ones. Letters: N items.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from wsrl.evaluation.probe import fixed_split, knn_probe, logistic_probe, one_nn_cosine, svm_probe
from wsrl.evaluation.retrieval import precision_at_k
from wsrl.options import at_least, check, option

TRAIN_FRACTION = 0.9
PROBES: Mapping[str, Callable[..., float]] = {
    "one_nn": lambda *parts: one_nn_cosine(*parts[:-1]),
    "knn": knn_probe,
    "logistic": logistic_probe,
    "svm": svm_probe,
}
"""Probes by name: accuracy of ``(features_train, labels_train, features_test, labels_test, seed)``."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How often, and on which splits, a probe is taken.

    Attributes:
        seeds: Number of seeds, counted from 0.
        folds: None for the given training and test part: each of several seeds draws, stratified, nine tenths of the
            training part (a single one takes it whole) and tests on the whole test part. Else the number of stratified
            folds of all items, drawn by each seed: each item is tested once, which suits data that are few.
    """

    seeds: int = option(5, at_least(1))
    folds: int | None = option(None, at_least(2))

    def __post_init__(self):
        check(self)

    def splits(
        self, labels: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places of training and test items of one seed.

        Args:
            labels: Class indices ``(N,)`` of all items.
            train: Places of the training part.
            test: Places of the test part.
            seed: The seed.

        Yields:
            Training and test places; one pair, or one for each fold.
        """
        if self.folds is None:
            whole = self.seeds == 1
            yield train if whole else train[fixed_split(labels[train], seed, 1 - TRAIN_FRACTION)[0]], test
            return
        places = np.sort(np.concatenate([train, test]))
        folds = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        yield from ((places[inside], places[outside]) for inside, outside in folds.split(places, labels[places]))


@dataclass(frozen=True)
class Spread:
    """A score over seeds.

    Attributes:
        values: The score of each seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Standard deviation over seeds; 0 of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def entries(self, name: str) -> dict[str, float]:
        """``name``, ``name_std`` and ``name_seeds`` for a record."""
        return {name: self.mean, f"{name}_std": self.std, f"{name}_seeds": len(self.values)}


def probe_scores(
    features: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    protocol: Protocol,
    probes: Sequence[str] = tuple(PROBES),
) -> dict[str, Spread]:
    """Test accuracies over the protocol's seeds.

    Args:
        features: Features ``(N, F)`` of all items.
        labels: Class indices ``(N,)``.
        train: Places of the training part.
        test: Places of the test part.
        protocol: Seeds and splits.
        probes: Names out of ``PROBES``.

    Returns:
        For each probe the share of the tested items that is classified rightly, in [0, 1].
    """
    scores: dict[str, list[float]] = {name: [] for name in probes}
    for seed in range(protocol.seeds):
        right, tested = dict.fromkeys(probes, 0.0), 0
        for inside, outside in protocol.splits(labels, train, test, seed):
            parts = features[inside], labels[inside], features[outside], labels[outside], seed
            tested += len(outside)
            for name in probes:
                right[name] += PROBES[name](*parts) * len(outside)
        for name in probes:
            scores[name].append(right[name] / tested)
    return {name: Spread(tuple(values)) for name, values in scores.items()}


def label_efficiency(
    features: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seeds: int,
    counts: Sequence[int] = (1, 5, 10, 100),
    probe: str = "logistic",
) -> dict[int, Spread]:
    """Test accuracy of a probe that sees so many labelled items of each class.

    Args:
        features: Features ``(N, F)`` of all items.
        labels: Class indices ``(N,)``.
        train: Places that the labelled items are drawn from, by each seed anew.
        test: Places of the test part, the same for all.
        seeds: Number of seeds.
        counts: Labelled items of each class; numbers that a class does not have are left out.
        probe: Name out of ``PROBES``.

    Returns:
        Accuracies by the number of items of each class.
    """
    least = np.unique(labels[train], return_counts=True)[1].min()
    curve = {}
    for count in (count for count in counts if count <= least):
        values = []
        for seed in range(seeds):
            few = draw_per_class(labels, train, count, seed)
            values.append(PROBES[probe](features[few], labels[few], features[test], labels[test], seed))
        curve[count] = Spread(tuple(values))
    return curve


def precision_by_class(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, k: int
) -> tuple[float, dict[int, float]]:
    """How many of the ``k`` training items nearest to a test item, by cosine, are of its class.

    Args:
        features: Features ``(N, F)`` of all items; they are standardised by the training part.
        labels: Class indices ``(N,)``.
        train: Places of the items that are searched, more than ``k``.
        test: Places of the items that are asked with.
        k: Number of neighbours.

    Returns:
        The mean share in [0, 1] over all test items, and that over the test items of each class.
    """
    by_class, total = {}, 0.0
    for number in np.unique(labels[test]):
        asked = test[labels[test] == number]
        queries = features[asked], labels[asked]
        by_class[int(number)] = precision_at_k(features[train], labels[train], (k,), queries=queries)[k]
        total += by_class[int(number)] * len(asked)
    return total / len(test), by_class


def draw_per_class(labels: np.ndarray, places: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many places of each class, drawn by the seed, in order; a smaller number is part of a larger one."""
    shuffled = np.random.default_rng(seed).permutation(places)
    return np.sort(np.concatenate([shuffled[labels[shuffled] == name][:count] for name in np.unique(labels[places])]))
