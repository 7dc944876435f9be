"""Probes: how much of a class a plain classifier reads out of features, be they weights or pixels.

Every probe treats weights and pixels alike, so that their accuracies can stand side by side. What a probe has to choose
it chooses inside the training part.

Letters: N items, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from wsrl.evaluation.svm import LinearSvm

REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SVM_REGULARISATION = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
MAX_ITERATIONS = 2000
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
    probe = best_probe(logistic, REGULARISATION, split.train, split.train_labels, seed)
    return float(probe.score(split.test, split.test_labels))


def svm_probe(split: Split, seed: int) -> float:
    """Test accuracy of a linear support vector machine on standardised features; ``C`` as for the regression.

    Args:
        split: What is read, and what it is tested on.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    probe = best_probe(svm, SVM_REGULARISATION, split.train, split.train_labels, seed)
    return float(probe.score(split.test, split.test_labels))


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
    return float(_votes(split, (1,))[0])


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
    features, labels = split.train, split.train_labels
    inner, outer = fixed_split(labels, seed, INNER_FRACTION)
    inside = Split(features[inner], labels[inner], features[outer], labels[outer])
    count = NEIGHBOURS[int(np.argmax(_votes(inside, NEIGHBOURS)))]
    return float(_votes(split, (count,))[0])


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


def logistic(strength: float) -> Pipeline:
    """A multinomial logistic regression on standardised features, not yet fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))


def svm(strength: float) -> Pipeline:
    """A linear support vector machine on standardised features, not yet fitted."""
    return make_pipeline(StandardScaler(), LinearSvm(C=strength))


def best_probe(
    make: Callable[[float], Pipeline], strengths: Sequence[float], features: np.ndarray, labels: np.ndarray, seed: int
) -> Pipeline:
    """The probe of the best strength, fitted on all items.

    Args:
        make: Probe of a strength, such as :func:`logistic`.
        strengths: Rising values of ``C`` to choose from, on a fifth of the items that the seed sets aside; the middle
            one where items are fewer than two per class, or the rest is of one class.
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``.
        seed: Seed of the inner split.
    """
    # A fifth is set aside to choose the strength by; too few items leave nothing to choose by.
    inner, outer = fixed_split(labels, seed, INNER_FRACTION)
    if len(labels) < 2 * len(np.unique(labels)) or len(np.unique(labels[inner])) < 2:
        return make(strengths[len(strengths) // 2]).fit(features, labels)
    scores = [
        make(strength).fit(features[inner], labels[inner]).score(features[outer], labels[outer])
        for strength in strengths
    ]
    # The best one, the smallest of equals, sees all items.
    return make(strengths[int(np.argmax(scores))]).fit(features, labels)


def _votes(split: Split, counts: Sequence[int]) -> list[float]:
    """Accuracy of the nearest items' vote for each number of them."""
    # Cosines about the mean of the training part, and the nearest items in order.
    mean = split.train.mean(axis=0)
    similarity = _unit(split.test - mean) @ _unit(split.train - mean).T  # (test, train)
    most = min(max(counts), len(split.train))
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
    classes, codes = np.unique(split.train_labels, return_inverse=True)
    votes = np.eye(len(classes))[codes[order]]  # (test, most, classes)
    accuracies = []
    for count in counts:
        # A half, a quarter, ... for the nearest ones decides between classes of equally many votes.
        counted = votes[:, :count]
        nearest = (counted * 0.5 ** np.arange(1, counted.shape[1] + 1)[None, :, None]).sum(axis=1)
        winners = classes[np.argmax(counted.sum(axis=1) + 0.9 * nearest, axis=1)]
        accuracies.append(np.mean(winners == split.test_labels))
    return accuracies


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of zeros stays as it is."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)
