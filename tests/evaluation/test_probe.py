"""Probes read classes that are there, and none that are not."""

import numpy as np

from wsrl.evaluation.probe import cross_validated_logistic, fixed_split, logistic_probe, one_nn


def blobs(num, seed, spread=0.3):
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    centres = np.array([[0.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    return (centres[labels] + spread * generator.normal(size=(num, 4))).astype(np.float32), labels


def test_logistic_and_neighbour_find_the_classes():
    train, test = blobs(90, 0), blobs(60, 1)
    assert logistic_probe(*train, *test, seed=0) > 0.95
    assert one_nn(*train, *test) > 0.95


def test_shuffled_labels_cannot_be_read():
    (features, labels), (features_test, labels_test) = blobs(90, 0), blobs(60, 1)
    labels = np.random.default_rng(2).permutation(labels)
    assert logistic_probe(features, labels, features_test, labels_test, seed=0) < 0.7


def test_cross_validation_tests_every_item_and_cannot_read_shuffled_labels():
    features, labels = blobs(60, 0)
    assert cross_validated_logistic(features, labels, seed=0) > 0.95
    shuffled = np.random.default_rng(2).permutation(labels)
    assert cross_validated_logistic(features, shuffled, seed=0) < 0.6
    # One item of a class that lies amid another is wrong in the only fold that tests it.
    features[0] = features[1]
    assert cross_validated_logistic(features, labels, seed=0) == 59 / 60


def test_logistic_does_not_see_the_scale_of_a_feature():
    (features, labels), (features_test, labels_test) = blobs(90, 0, 0.8), blobs(60, 1, 0.8)
    scale = np.array([1.0, 1e3, 1e-3, 10.0], dtype=np.float32)
    plain = logistic_probe(features, labels, features_test, labels_test, seed=0)
    assert logistic_probe(features * scale, labels, features_test * scale, labels_test, seed=0) == plain


def test_fixed_split_is_stratified_and_repeats():
    labels = np.repeat([0, 1], [80, 20])
    train, test = fixed_split(labels, seed=4)
    assert sorted([*train, *test]) == list(range(100))
    assert (labels[test] == 1).sum() == 4
    assert np.array_equal(train, fixed_split(labels, seed=4)[0])
    assert not np.array_equal(train, fixed_split(labels, seed=5)[0])


def test_fixed_split_of_few_items_is_at_random():
    labels = np.repeat(np.arange(9), 2)  # a fifth of them cannot have all classes
    train, test = fixed_split(labels, seed=4)
    assert sorted([*train, *test]) == list(range(18)) and len(test) == 4
