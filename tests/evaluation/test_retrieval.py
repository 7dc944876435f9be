"""Nearest fields beside a loop over all, and precision at k beside counting by hand."""

import numpy as np
import pytest
import torch

from wsrl.errors import UserError
from wsrl.evaluation import retrieval
from wsrl.evaluation.retrieval import nearest_fields, pairwise_distances, precision_at_k
from wsrl.store import WeightStore


@pytest.fixture(scope="module")
def store(make_store, tmp_path_factory):
    with WeightStore.open(make_store(tmp_path_factory.mktemp("store") / "store", num=70, shards=3)) as opened:
        yield opened


def by_loop(store, row, metric):
    """Rows by distance from one, and the distances."""
    flat = torch.stack([store.layout.flatten(store[i])[store.layout.trainable()] for i in range(len(store))]).double()
    flat = (flat - flat.mean(0)) / flat.std(0, correction=0)
    if metric == "cosine":
        distances = [1 - float(flat[row] @ other / flat[row].norm() / other.norm()) for other in flat]
    else:
        distances = [float((flat[row] - other).square().mean().sqrt()) for other in flat]
    order = [i for i in np.argsort(distances, kind="stable") if i != row]
    return order, [distances[i] for i in order]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("row", [0, 41])
def test_neighbours_are_those_of_a_loop_whatever_the_blocks(store, monkeypatch, metric, row):
    rows, distances = by_loop(store, row, metric)
    for size in (256, 7):
        monkeypatch.setattr(retrieval, "BATCH", size)
        found = nearest_fields(store, row, 9, metric)
        assert found.rows.tolist() == rows[:9]
        assert found.distances.tolist() == pytest.approx(distances[:9], rel=1e-5)
    assert len(nearest_fields(store, row, 1000, metric).rows) == 69


def test_the_metrics_differ(store):
    assert any(by_loop(store, i, "cosine")[0][:5] != by_loop(store, i, "euclidean")[0][:5] for i in range(5))


def test_precision_is_that_of_counting():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 6, generator=generator).double(), torch.arange(40) % 3
    features[:, 0] += 2.0 * labels
    features[:, 3] = 1.0  # constant
    scaled = (features - features.mean(0))[:, [0, 1, 2, 4, 5]]
    scaled = scaled / scaled.std(0, correction=0)
    for metric in ("cosine", "euclidean"):
        distances = pairwise_distances(scaled, scaled, metric)
        shares = {1: [], 5: []}
        for i in range(40):
            order = [int(j) for j in distances[i].argsort() if j != i]
            for k, found in shares.items():
                found.append(np.mean([labels[j] == labels[i] for j in order[:k]]))
        found = precision_at_k(features.numpy(), labels.numpy(), (1, 5), metric=metric)
        assert found == pytest.approx({k: np.mean(share) for k, share in shares.items()})
        assert found[5] > 0.4  # by chance 0.33


def test_precision_of_a_test_part_and_of_shuffled_labels():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(600) % 4
    features = torch.randn(600, 5, generator=generator) + 6.0 * torch.nn.functional.one_hot(labels, 5)
    train, test = (features[:400], labels[:400]), (features[400:], labels[400:])
    found = precision_at_k(*train, (1, 10), queries=test)
    assert found[1] > 0.95 and found[10] > 0.95
    shuffled = labels[torch.randperm(600, generator=generator)]
    by_chance = precision_at_k(features, shuffled, (10,))
    assert by_chance[10] == pytest.approx(0.25, abs=0.03)


def test_wrong_questions_are_refused(store):
    with pytest.raises(UserError, match="metric is 'manhattan'"):
        nearest_fields(store, 0, 3, "manhattan")
    with pytest.raises(UserError, match="k is 0"):
        nearest_fields(store, 0, 0)
    with pytest.raises(UserError, match="k is 4"):
        precision_at_k(np.eye(4), np.arange(4), (4,))
