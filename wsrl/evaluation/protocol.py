"""How a score is taken several times: fixed splits, one per seed, and the mean and spread over them.

The seeds alone decide the splits, so that every kind of features is scored on the same ones.

Letters: N items, F features.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from wsrl.evaluation.probe import PROBES, Split, accuracies, fixed_split, logistic_probe
from wsrl.evaluation.retrieval import nearest_right
from wsrl.options import at_least, check, option

TRAIN_FRACTION = 0.9


@dataclass(frozen=True)
class Items:
    """What probes read, and how it is cut.

    Attributes:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``.
        train: Indices of the training part.
        test: Indices of the test part.
    """

    features: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def split(self, train: np.ndarray | None = None, test: np.ndarray | None = None) -> Split:
        """What a probe takes: the items' own training and test part, or those of other indices."""
        train, test = self.train if train is None else train, self.test if test is None else test
        return Split(self.features[train], self.labels[train], self.features[test], self.labels[test])


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How often, and on which splits, a probe is taken.

    Attributes:
        seeds: Number of seeds, counted from 0.
        folds: None for the items' own parts: each of several seeds draws, stratified, nine tenths of the training part
            (a single one takes it whole) and tests on the whole test part. Else the number of stratified folds of all
            items, drawn by each seed: each item is tested once, which suits data that are few.
    """

    seeds: int = option(5, at_least(1))
    folds: int | None = option(None, at_least(2))

    def __post_init__(self):
        check(self)

    def splits(self, items: Items, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices of training and of test items of one seed: one pair, or one for each fold."""
        if self.folds is None:
            few = slice(None)
            if self.seeds > 1:
                few = fixed_split(items.labels[items.train], seed, 1 - TRAIN_FRACTION)[0]
            yield items.train[few], items.test
            return
        every = np.sort(np.concatenate([items.train, items.test]))
        folds = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        yield from ((every[inside], every[outside]) for inside, outside in folds.split(every, items.labels[every]))


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


def probe_scores(items: Items, protocol: Protocol, probes: Sequence[str] = PROBES) -> dict[str, Spread]:
    """Test accuracies over the protocol's seeds.

    Args:
        items: Features and labels.
        protocol: Seeds and splits.
        probes: Names out of ``PROBES``.

    Returns:
        For each probe the share of the tested items that is classified rightly, in [0, 1].
    """
    scores: dict[str, list[float]] = {name: [] for name in probes}
    for seed in range(protocol.seeds):
        right, tested = dict.fromkeys(probes, 0.0), 0
        for inside, outside in protocol.splits(items, seed):
            tested += len(outside)
            for name, accuracy in accuracies(items.split(inside, outside), seed, probes).items():
                right[name] += accuracy * len(outside)
        for name in probes:
            scores[name].append(right[name] / tested)
    return {name: Spread(tuple(values)) for name, values in scores.items()}


def label_efficiency(items: Items, seeds: int, counts: Sequence[int]) -> dict[int, Spread]:
    """Test accuracy of the logistic regression that sees so many labelled items of each class.

    Args:
        items: Features and labels. Labelled items are drawn from the training part, by each seed anew; the test part
            is the same for all.
        seeds: Number of seeds.
        counts: Labelled items of each class; numbers that a class does not have are left out.

    Returns:
        Accuracies by the number of items of each class.
    """
    least = np.unique(items.labels[items.train], return_counts=True)[1].min()
    curve = {}
    for count in (count for count in counts if count <= least):
        drawn = (draw_per_class(items.labels, items.train, count, seed) for seed in range(seeds))
        values = (logistic_probe(items.split(few), seed) for seed, few in enumerate(drawn))
        curve[count] = Spread(tuple(values))
    return curve


def precision_by_class(items: Items, k: int) -> tuple[float, dict[int, float]]:
    """How many of the ``k`` training items nearest to a test item, by cosine, are of its class.

    Args:
        items: Features and labels; features are standardised by the training part, which has more than ``k`` items.
        k: Number of neighbours.

    Returns:
        The mean share in [0, 1] over all test items, and that over the test items of each class.
    """
    split = items.split()
    right = nearest_right(split.train, split.train_labels, k, queries=(split.test, split.test_labels)).mean(axis=1)
    by_class = {
        int(number): float(right[split.test_labels == number].mean()) for number in np.unique(split.test_labels)
    }
    return float(right.mean()), by_class


def draw_per_class(labels: np.ndarray, indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many of the indices of each class, drawn by the seed, in order; a smaller number is part of a larger one."""
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.sort(np.concatenate([shuffled[labels[shuffled] == name][:count] for name in np.unique(labels[indices])]))
