"""k-means finds blobs, and nothing in noise."""

import numpy as np

from wsrl.evaluation.clustering import cluster_scores, k_means

LABELS = np.repeat(np.arange(3), 30)


def features(distance):
    return (np.random.default_rng(0).normal(size=(90, 4)) + distance * np.eye(4)[LABELS]).astype(np.float32)


def test_blobs_are_found_and_noise_agrees_with_nothing():
    blobs, noise = (cluster_scores(features(distance), LABELS, 3) for distance in (20.0, 0.0))
    assert blobs["ari"].values == blobs["nmi"].values == (1.0, 1.0, 1.0)
    assert blobs["silhouette"].mean > 0.8 and blobs["silhouette"].values == blobs["class_silhouette"].values
    assert abs(noise["ari"].mean) < 0.1 and noise["nmi"].mean < 0.15
    assert noise["class_silhouette"].mean < 0.05 < noise["silhouette"].mean


def test_seeds_repeat_and_differ():
    noise = features(0.0)
    assert np.array_equal(k_means(noise, 3, 1), k_means(noise, 3, 1))
    assert not np.array_equal(k_means(noise, 3, 1), k_means(noise, 3, 2))
