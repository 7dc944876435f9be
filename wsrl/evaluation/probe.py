"""Probes: how much of a class a plain classifier reads out of features, be they weights or pixels.

Every probe treats weights and pixels alike, so that their accuracies can stand side by side.
Letters: N items, F features.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
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

    Mean and deviation come from the training part. The inverse strength ``C`` of the L2 penalty is chosen among
    ``REGULARISATION`` on a fifth of the training part, set aside by the seed (the smallest of equals), and the
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
    strength = _choose_strength(features_train, labels_train, seed)
    return float(_logistic(strength).fit(features_train, labels_train).score(features_test, labels_test))


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


def _logistic(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))


def _choose_strength(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    inner, outer = fixed_split(labels, seed, INNER_FRACTION)
    scores = [
        _logistic(strength).fit(features[inner], labels[inner]).score(features[outer], labels[outer])
        for strength in REGULARISATION
    ]
    return REGULARISATION[int(np.argmax(scores))]
