"""Probes: how much of a class a plain classifier reads out of features, be they weights or pixels.

Every probe treats weights and pixels alike, so that their accuracies can stand side by side. What a probe has to choose
it chooses inside the training part.

Letters: N items, F features.
"""

from collections.abc import Callable, Sequence

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


def logistic_probe(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
    seed: int,
) -> float:
    """Test accuracy of a multinomial logistic regression on standardised features.

    Mean and standard deviation come from the training part. The inverse strength ``C`` of the L2 penalty is chosen
    among ``REGULARISATION`` on a fifth of the training part, set aside by the seed (the smallest of equals), and the
    regression is then fitted on the whole training part; the test part is looked at once.

    Args:
        features_train: Features ``(N, F)``.
        labels_train: Class indices ``(N,)``.
        features_test: Features of the test part.
        labels_test: Class indices of the test part.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    probe = best_probe(logistic, REGULARISATION, features_train, labels_train, seed)
    return float(probe.score(features_test, labels_test))


def svm_probe(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
    seed: int,
) -> float:
    """Test accuracy of a linear support vector machine on standardised features; ``C`` as for the regression.

    Args:
        features_train: Features ``(N, F)``.
        labels_train: Class indices ``(N,)``.
        features_test: Features of the test part.
        labels_test: Class indices of the test part.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    probe = best_probe(svm, SVM_REGULARISATION, features_train, labels_train, seed)
    return float(probe.score(features_test, labels_test))


def cross_validated_logistic(features: np.ndarray, labels: np.ndarray, seed: int, num_folds: int = NUM_FOLDS) -> float:
    """Accuracy of :func:`logistic_probe` on items that are few: each is tested once, by a probe of the other folds.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``; each class has at least as many items as there are folds.
        seed: Seed of the stratified folds and of the probes.
        num_folds: Number of folds.

    Returns:
        Share of all items that are classified rightly, in [0, 1].
    """
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(features, labels)
    right = [
        logistic_probe(features[train], labels[train], features[test], labels[test], seed) * len(test)
        for train, test in folds
    ]
    return sum(right) / len(labels)


def one_nn(
    features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray, labels_test: np.ndarray
) -> float:
    """Test accuracy of the nearest training item by Euclidean distance between the features as they are.

    Args:
        features_train: Features ``(N, F)``.
        labels_train: Class indices ``(N,)``.
        features_test: Features of the test part.
        labels_test: Class indices of the test part.

    Returns:
        Accuracy in [0, 1].
    """
    nearest = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(features_train, labels_train)
    return float(nearest.score(features_test, labels_test))


def one_nn_cosine(
    features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray, labels_test: np.ndarray
) -> float:
    """Test accuracy of the training item at the smallest angle, seen from the mean of the training part.

    All fields of a shared start have that start in common; about the mean, angles are those of what is their own.

    Args:
        features_train: Features ``(N, F)``.
        labels_train: Class indices ``(N,)``.
        features_test: Features of the test part.
        labels_test: Class indices of the test part.

    Returns:
        Accuracy in [0, 1].
    """
    return float(_votes(features_train, labels_train, features_test, labels_test, (1,))[0])


def knn_probe(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
    seed: int,
) -> float:
    """Test accuracy of a vote of the ``k`` training items at the smallest angles, seen from their mean.

    ``k`` is chosen among ``NEIGHBOURS`` on a fifth of the training part that the seed sets aside (the smallest of
    equals). Of classes with equally many votes the one with the nearest item wins.

    Args:
        features_train: Features ``(N, F)``.
        labels_train: Class indices ``(N,)``.
        features_test: Features of the test part.
        labels_test: Class indices of the test part.
        seed: Seed of the inner split.

    Returns:
        Accuracy in [0, 1].
    """
    inner, outer = fixed_split(labels_train, seed, INNER_FRACTION)
    inside = features_train[inner], labels_train[inner], features_train[outer], labels_train[outer]
    count = NEIGHBOURS[int(np.argmax(_votes(*inside, NEIGHBOURS)))]
    return float(_votes(features_train, labels_train, features_test, labels_test, (count,))[0])


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
    inner, outer = fixed_split(labels, seed, INNER_FRACTION)
    if len(labels) < 2 * len(np.unique(labels)) or len(np.unique(labels[inner])) < 2:
        return make(strengths[len(strengths) // 2]).fit(features, labels)
    scores = [
        make(strength).fit(features[inner], labels[inner]).score(features[outer], labels[outer])
        for strength in strengths
    ]
    return make(strengths[int(np.argmax(scores))]).fit(features, labels)


def _votes(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
    counts: Sequence[int],
) -> list[float]:
    """Accuracy of the nearest items' vote for each number of them."""
    # Cosines about the mean of the training part, and the nearest items in order.
    mean = features_train.mean(axis=0)
    similarity = _unit(features_test - mean) @ _unit(features_train - mean).T  # (test, train)
    most = min(max(counts), len(labels_train))
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
    classes, codes = np.unique(labels_train, return_inverse=True)
    votes = np.eye(len(classes))[codes[order]]  # (test, most, classes)
    accuracies = []
    for count in counts:
        # A half, a quarter, ... for the nearest ones decides between classes of equally many votes.
        counted = votes[:, :count]
        nearest = (counted * 0.5 ** np.arange(1, counted.shape[1] + 1)[None, :, None]).sum(axis=1)
        accuracies.append(np.mean(classes[np.argmax(counted.sum(axis=1) + 0.9 * nearest, axis=1)] == labels_test))
    return accuracies


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of zeros stays as it is."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)
