"""Probes: how much of a class a plain classifier reads out of features, be they weights or pixels.

Every probe treats weights and pixels alike, so that their accuracies can stand side by side. What a probe has to choose
it chooses inside the training part.

Letters: N items, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier

from wsrl.evaluation.linear_readers import LOGISTIC, SQUARED_HINGE, LinearReader, Readable

PROBES = ("one_nn", "knn", "logistic", "svm")
REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SVM_REGULARISATION = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
LINEAR = {"logistic": (LOGISTIC, REGULARISATION), "svm": (SQUARED_HINGE, SVM_REGULARISATION)}
"""Losses of the linear probes, and the rising strengths that they choose from."""
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
INNER_FRACTION = 0.2
NUM_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Features and labels of a training part and of a test part.

    Attributes:
        train: Features ``(N, F)`` of the training part.
        train_labels: Class indices ``(N,)``.
        test: Features of the test part.
        test_labels: Class indices of the test part.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def accuracies(split: Split, seed: int, names: Sequence[str] = PROBES) -> dict[str, float]:
    """Test accuracies of several probes, which share what they can: distances, and the axes of the features.

    Args:
        split: What is read, and what it is tested on.
        seed: Seed of the inner split.
        names: Names out of ``PROBES``: :func:`one_nn_cosine`, :func:`knn_probe`, :func:`logistic_probe` and
            :func:`svm_probe`.

    Returns:
        Accuracies in [0, 1] by name, in the order of ``names``.
    """
    found: dict[str, float] = {}
    if voting := [name for name in names if name not in LINEAR]:
        found |= _voted(split, seed, voting)
    if linear := [name for name in names if name in LINEAR]:
        readers = best_readers(split.train, split.train_labels, seed, linear)
        found |= {name: reader.score(split.test, split.test_labels) for name, reader in readers.items()}
    return {name: found[name] for name in names}


def logistic_probe(split: Split, seed: int) -> float:
    """Test accuracy of a multinomial logistic regression on standardised features.

    Mean and standard deviation come from the training part. The inverse strength ``C`` of the L2 penalty is chosen
    among ``REGULARISATION`` on a fifth of the training part, set aside by the seed (the smallest of equals), and the
    regression is then fitted on the whole training part; the test part is looked at once.

    Args:
        split: What is read, and what it is tested on.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    return accuracies(split, seed, ("logistic",))["logistic"]


def svm_probe(split: Split, seed: int) -> float:
    """Test accuracy of a linear support vector machine on standardised features; ``C`` as for the regression.

    Args:
        split: What is read, and what it is tested on.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    return accuracies(split, seed, ("svm",))["svm"]


def cross_validated_logistic(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Accuracy of :func:`logistic_probe` on items that are few: each is tested once, by a probe of the other folds.

    There are ``NUM_FOLDS`` stratified folds.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``; each class has at least as many items as there are folds.
        seed: Seed of the folds and of the probes.

    Returns:
        Share of all items that are classified rightly, in [0, 1].
    """
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(features, labels)
    splits = (Split(features[train], labels[train], features[test], labels[test]) for train, test in folds)
    return sum(logistic_probe(split, seed) * len(split.test) for split in splits) / len(labels)


def one_nn(split: Split) -> float:
    """Test accuracy of the nearest training item by Euclidean distance between the features as they are.

    Args:
        split: What is read, and what it is tested on.

    Returns:
        Accuracy in [0, 1].
    """
    nearest = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(split.train, split.train_labels)
    return float(nearest.score(split.test, split.test_labels))


def one_nn_cosine(split: Split) -> float:
    """Test accuracy of the training item at the smallest angle, seen from the mean of the training part.

    All fields of a shared start have that start in common; about the mean, angles are those of what is their own.

    Args:
        split: What is read, and what it is tested on.

    Returns:
        Accuracy in [0, 1].
    """
    return accuracies(split, 0, ("one_nn",))["one_nn"]


def knn_probe(split: Split, seed: int) -> float:
    """Test accuracy of a vote of the ``k`` training items at the smallest angles, seen from their mean.

    ``k`` is chosen among ``NEIGHBOURS`` on a fifth of the training part that the seed sets aside (the smallest of
    equals). Of classes with equally many votes the one with the nearest item wins.

    Args:
        split: What is read, and what it is tested on.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    return accuracies(split, seed, ("knn",))["knn"]


def fixed_split(labels: np.ndarray, seed: int, test_fraction: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Train and test indices for a source that has no split of its own; stratified unless there are too few items.

    Args:
        labels: Class indices ``(N,)``.
        seed: Seed of the split; the same labels and seed give the same split.
        test_fraction: Share of the items in the test part.

    Returns:
        Sorted indices of the training part and of the test part.
    """
    members, num_test = np.unique(labels, return_counts=True)[1], -(-len(labels) * test_fraction // 1)
    enough = members.min() >= 2 and min(num_test, len(labels) - num_test) >= len(members)
    stratify = labels if enough else None
    train, test = train_test_split(
        np.arange(len(labels)), test_size=test_fraction, random_state=seed, stratify=stratify
    )
    return np.sort(train), np.sort(test)


def best_readers(features: np.ndarray, labels: np.ndarray, seed: int, names: Sequence[str]) -> dict[str, LinearReader]:
    """Linear readers of the best strengths, fitted on all items.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``.
        seed: Seed of the fifth of the items that is set aside to choose the strength by. Where items are fewer than two
            per class, or the rest is of one class, the middle strength is taken.
        names: Names out of ``LINEAR``.

    Returns:
        A reader by name, with the smallest of equally good strengths.
    """
    inner, outer = fixed_split(labels, seed, INNER_FRACTION)
    chosen: dict[str, tuple[float, LinearReader | None]] = {
        name: (LINEAR[name][1][len(LINEAR[name][1]) // 2], None) for name in names
    }
    if len(labels) >= 2 * len(np.unique(labels)) and len(np.unique(labels[inner])) > 1:
        inside = Readable(features[inner], labels[inner])
        for name in names:
            loss, strengths = LINEAR[name]
            tried = inside.readers(loss, strengths)
            scores = [reader.score(features[outer], labels[outer]) for reader in tried]
            best = int(np.argmax(scores))
            chosen[name] = strengths[best], tried[best]
    # The best ones go on with all items.
    whole = Readable(features, labels)
    return {name: whole.readers(LINEAR[name][0], (strength,), near)[0] for name, (strength, near) in chosen.items()}


def _voted(split: Split, seed: int, names: Sequence[str]) -> dict[str, float]:
    """Accuracies of the probes ``one_nn`` and ``knn``."""
    counts = {"one_nn": 1}
    if "knn" in names:
        inner, outer = fixed_split(split.train_labels, seed, INNER_FRACTION)
        features, labels = split.train, split.train_labels
        inside = Split(features[inner], labels[inner], features[outer], labels[outer])
        counts["knn"] = NEIGHBOURS[int(np.argmax(_votes(inside, NEIGHBOURS)))]
    found = zip(counts, _votes(split, tuple(counts.values())))
    return {name: accuracy for name, accuracy in found if name in names}


def _votes(split: Split, counts: Sequence[int]) -> list[float]:
    """Accuracy of the nearest items' vote for each number of them."""
    # Cosines about the mean of the training part, and the nearest items in order; of equally near ones the first.
    mean = split.train.mean(axis=0)
    similarity = _unit(split.test - mean) @ _unit(split.train - mean).T  # (test, train)
    most = min(max(counts), len(split.train))
    near = np.sort(np.argpartition(-similarity, most - 1, axis=1)[:, :most], axis=1)
    order = np.argsort(-np.take_along_axis(similarity, near, 1), axis=1, kind="stable")
    order = np.take_along_axis(near, order, 1)
    classes, codes = np.unique(split.train_labels, return_inverse=True)
    votes = np.eye(len(classes))[codes[order]]  # (test, most, classes)
    found = []
    for count in counts:
        # A half, a quarter, ... for the nearest ones decides between classes of equally many votes.
        counted = votes[:, :count]
        nearest = (counted * 0.5 ** np.arange(1, counted.shape[1] + 1)[None, :, None]).sum(axis=1)
        winners = classes[np.argmax(counted.sum(axis=1) + 0.9 * nearest, axis=1)]
        found.append(float(np.mean(winners == split.test_labels)))
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of zeros stays as it is."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)
