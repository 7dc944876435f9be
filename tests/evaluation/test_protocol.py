"""Seeds decide the splits, alike for all features; scores have a mean and a spread."""

import numpy as np
import pytest

from wsrl.errors import UserError
from wsrl.evaluation.protocol import (
    PROBES,
    Items,
    Protocol,
    Spread,
    draw_per_class,
    label_efficiency,
    precision_by_class,
    probe_scores,
)

LABELS = np.arange(120) % 3
TRAIN, TEST = np.arange(0, 90), np.arange(90, 120)


def items(signal=2.0, seed=0):
    generator = np.random.default_rng(seed)
    features = (generator.normal(size=(120, 5)) + signal * np.eye(5)[LABELS]).astype(np.float32)
    return Items(features, LABELS, TRAIN, TEST)


def test_seeds_draw_training_items_and_test_on_the_whole_part():
    protocol = Protocol(seeds=2)
    (first,), (again,), (other,) = (list(protocol.splits(items(), seed)) for seed in (0, 0, 1))
    assert np.array_equal(first[0], again[0]) and not np.array_equal(first[0], other[0])
    assert np.array_equal(first[1], TEST) and len(first[0]) == 81 and set(first[0]) < set(TRAIN)
    assert np.bincount(LABELS[first[0]]).tolist() == [27, 27, 27]
    ((whole, _),) = Protocol(seeds=1).splits(items(), 0)
    assert np.array_equal(whole, TRAIN)


def test_folds_test_every_item_once():
    pairs = list(Protocol(folds=4).splits(items(), 0))
    assert sorted(np.concatenate([outside for _, outside in pairs])) == list(range(120))
    assert all(not set(inside) & set(outside) and len(inside) == 90 for inside, outside in pairs)
    other = list(Protocol(folds=4).splits(items(), 1))
    assert not np.array_equal(pairs[0][1], other[0][1])


@pytest.mark.parametrize("folds", [None, 3])
def test_classes_are_read_and_noise_is_not(folds):
    protocol = Protocol(seeds=1 if folds else 2, folds=folds)
    known, noise = (probe_scores(items(signal), protocol) for signal in (3.0, 0.0))
    assert set(known) == set(PROBES) and len(known["svm"].values) == protocol.seeds
    assert all(known[name].mean > 0.8 and noise[name].mean < 0.65 for name in PROBES)
    assert probe_scores(items(), protocol, ("one_nn",)).keys() == {"one_nn"}


def test_spread_of_a_record():
    spread = Spread((0.5, 0.7))
    assert spread.entries("knn") == pytest.approx({"knn": 0.6, "knn_std": 0.02**0.5, "knn_seeds": 2})
    assert Spread((0.5,)).std == 0


def test_more_labels_are_better_and_counts_that_a_class_has_not_are_left_out():
    curve = label_efficiency(items(1.5), 4, (1, 20, 31))
    assert list(curve) == [1, 20] and curve[1].mean < curve[20].mean and curve[1].std > 0
    few, more = (draw_per_class(LABELS, TRAIN, count, 3) for count in (1, 5))
    assert LABELS[few].tolist().count(0) == 1 and np.bincount(LABELS[more]).tolist() == [5, 5, 5]
    assert set(few) < set(more) < set(TRAIN)


def test_precision_of_each_class():
    labels = np.repeat([0, 1, 2], 20)
    values = 0.1 * np.random.default_rng(0).normal(size=(60, 4)) + np.eye(4)[np.where(labels == 2, 0, labels)]
    train, test = np.arange(60)[np.arange(60) % 2 == 0], np.arange(60)[np.arange(60) % 2 == 1]
    mean, by_class = precision_by_class(Items(values, labels, train, test), 4)
    assert by_class[1] == 1.0 and 0.2 < by_class[0] < 0.8 and 0.2 < by_class[2] < 0.8  # 0 and 2 are the same
    assert mean == pytest.approx(np.mean(list(by_class.values())))


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="seeds is 0"):
        Protocol(seeds=0)
    with pytest.raises(UserError, match="folds is 1"):
        Protocol(folds=1)
