"""Probes read classes that are there, and none that are not."""

import numpy as np
import pytest

from wsrl.evaluation import probe
from wsrl.evaluation.linear_readers import Readable
from wsrl.evaluation.probe import (
    Split,
    cross_validated_logistic,
    fixed_split,
    knn_probe,
    logistic_probe,
    one_nn,
    one_nn_cosine,
    svm_probe,
)


def blobs(num, seed, spread=0.3):
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    centres = np.array([[0.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    return (centres[labels] + spread * generator.normal(size=(num, 4))).astype(np.float32), labels


def test_logistic_and_neighbour_find_the_classes():
    train, test = blobs(90, 0), blobs(60, 1)
    assert logistic_probe(Split(*train, *test), seed=0) > 0.95
    assert one_nn(Split(*train, *test)) > 0.95


def test_shuffled_labels_cannot_be_read():
    (features, labels), (features_test, labels_test) = blobs(90, 0), blobs(60, 1)
    labels = np.random.default_rng(2).permutation(labels)
    assert logistic_probe(Split(features, labels, features_test, labels_test), seed=0) < 0.7


@pytest.mark.parametrize("reader", [svm_probe, knn_probe])
def test_other_probes_find_the_classes_and_no_shuffled_ones(reader):
    (features, labels), test = blobs(90, 0), blobs(60, 1)
    assert reader(Split(features, labels, *test), seed=0) > 0.95
    assert reader(Split(features, np.random.default_rng(2).permutation(labels), *test), seed=0) < 0.7


def test_cosine_neighbours_see_the_angle_about_the_mean_alone():
    directions = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    train, labels = directions + 100, np.arange(4)  # without the mean, all angles would be alike
    test = 100 + 9 * directions + 0.1
    assert one_nn_cosine(Split(train, labels, test, labels)) == 1.0
    assert one_nn_cosine(Split(train, labels, test, np.roll(labels, 1))) == 0.0
    far = np.array([[1.2, 0.0], [10.0, 4.0], [-11.2, -4.0]])  # centred; the second one is nearer to (3, 1) by angle
    at = np.array([[3.0, 1.0]])
    assert one_nn_cosine(Split(far, np.arange(3), at, np.array([1]))) == 1.0
    assert one_nn(Split(far, np.arange(3), at, np.array([0]))) == 1.0


def test_number_of_neighbours_is_chosen_inside_the_training_part(monkeypatch):
    features, labels = blobs(300, 0, spread=0.1)
    wrong = np.random.default_rng(1).permutation(300)[:75]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + 1) % 3  # the nearest one is often wrong, the vote of ten is not
    split = Split(features, noisy, *blobs(150, 3, spread=0.1))
    assert knn_probe(split, seed=0) > 0.95 > one_nn_cosine(split)
    monkeypatch.setattr(probe, "NEIGHBOURS", (1,))
    assert knn_probe(split, seed=0) == one_nn_cosine(split) < 0.9


def test_equal_votes_go_to_the_class_of_the_nearest(monkeypatch):
    monkeypatch.setattr(probe, "NEIGHBOURS", (2,))
    angles = np.array([0.0, 0.5, 2.5, 3.0, 4.0, 5.0])
    features, labels = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 1, 0, 1, 0, 1])
    features = np.concatenate([features, -features])  # the mean is zero
    labels = np.concatenate([labels, 1 - labels])
    test = np.array([[np.cos(0.2), np.sin(0.2)], [np.cos(0.3), np.sin(0.3)]])
    assert knn_probe(Split(features, labels, test, np.array([0, 1])), seed=0) == 1.0


@pytest.mark.parametrize(
    ("name", "strengths"), [("logistic", (1e-8, 1.0, 1.01, 1.02)), ("svm", (1e-2, 1.01e-2, 10.0, 10.1))]
)
def test_the_smallest_of_the_best_strengths_is_fitted_on_all_items(name, strengths, monkeypatch):
    loss, _ = probe.LINEAR[name]
    features, labels = blobs(90, 0, spread=0.9)
    monkeypatch.setitem(probe.LINEAR, name, (loss, strengths))
    inner, outer = fixed_split(labels, 0, probe.INNER_FRACTION)
    tried = Readable(features[inner], labels[inner]).readers(loss, strengths)
    scores = [reader.score(features[outer], labels[outer]) for reader in tried]
    best = scores.index(max(scores))
    assert scores.count(max(scores)) > 1 and scores[-1] != scores[0]  # some are alike, and not all
    found = probe.best_readers(features, labels, 0, (name,))[name]
    (expected,) = Readable(features, labels).readers(loss, (strengths[best],), tried[best])
    assert np.array_equal(found.weight, expected.weight)
    # One of each class: none can be held out, and the middle one is taken.
    found = probe.best_readers(features[:3], labels[:3], 0, (name,))[name]
    assert np.array_equal(found.weight, Readable(features[:3], labels[:3]).readers(loss, strengths[2:3])[0].weight)


def test_probes_together_are_those_alone():
    split = Split(*blobs(90, 0, spread=0.9), *blobs(60, 1, spread=0.9))
    alone = {"one_nn": one_nn_cosine(split)}
    alone |= {"knn": knn_probe(split, 3), "logistic": logistic_probe(split, 3), "svm": svm_probe(split, 3)}
    assert probe.accuracies(split, 3) == alone and len(set(alone.values())) > 1
    assert list(probe.accuracies(split, 3, ("svm", "one_nn"))) == ["svm", "one_nn"]


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
    plain = logistic_probe(Split(features, labels, features_test, labels_test), seed=0)
    assert logistic_probe(Split(features * scale, labels, features_test * scale, labels_test), seed=0) == plain


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
