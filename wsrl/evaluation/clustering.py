"""Clusters that k-means finds without labels, beside the classes.

Letters: N items, F features.
"""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, pairwise_distances, silhouette_score

from wsrl.evaluation.protocol import Spread

NUM_STARTS = 3
SILHOUETTE_ITEMS = 2000


def cluster_scores(features: np.ndarray, labels: np.ndarray, seeds: int) -> dict[str, Spread]:
    """How well clusters agree with the classes, and how apart they are; k-means with as many clusters as classes.

    Of each seed's ``NUM_STARTS`` starts (k-means++) the one with the least distances counts. Features are taken as they
    are, in Euclidean distance.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``; the clustering does not see them, only their number.
        seeds: Number of seeds, counted from 0.

    Returns:
        ``ari``: adjusted Rand index, 0 for clusters at random and 1 for the classes; ``nmi``: mutual information over
        the mean entropy; ``silhouette``: mean silhouette of the clusters, in [-1, 1], on ``SILHOUETTE_ITEMS`` items at
        most, drawn by the seed; ``class_silhouette``: that of the classes on the same items.
    """
    scores: dict[str, list[float]] = {"ari": [], "nmi": [], "silhouette": [], "class_silhouette": []}
    for seed in range(seeds):
        # Clusters against the classes on all items; silhouettes, whose cost is quadratic, on some.
        clusters = k_means(features, len(np.unique(labels)), seed)
        some = np.sort(np.random.default_rng(seed).permutation(len(labels))[:SILHOUETTE_ITEMS])
        scores["ari"].append(adjusted_rand_score(labels, clusters))
        scores["nmi"].append(normalized_mutual_info_score(labels, clusters))
        apart = pairwise_distances(features[some])
        for name, groups in (("silhouette", clusters), ("class_silhouette", labels)):
            scores[name].append(silhouette_score(apart, groups[some], metric="precomputed"))
    return {name: Spread(tuple(map(float, values))) for name, values in scores.items()}


def k_means(features: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Cluster numbers ``(N,)``.

    Args:
        features: Features ``(N, F)``.
        num_clusters: Number of clusters.
        seed: Seed of the starts.
    """
    return KMeans(num_clusters, n_init=NUM_STARTS, random_state=seed).fit_predict(features)
