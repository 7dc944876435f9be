"""The data module: batches by worker processes, orders, statistics, flat memory."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsrl.errors import UserError
from wsrl.training.weight_data import WeightDataModule

ROOT = Path(__file__).resolve().parent.parent.parent


def ids(loader):
    return [name for batch in loader for name in batch.ids]


@pytest.fixture
def store(tmp_path, make_store):
    return str(make_store(tmp_path / "store", num=61, shards=3))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_field_comes_once_in_batches_of_the_promised_number(store, workers):
    data = WeightDataModule(store, batch_size=8, num_workers=workers, val_fraction=0.2)
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    found = {part: ids(loader) for part, loader in loaders.items()}
    assert {part: len(names) for part, names in found.items()} == {part: data.num_fields(part) for part in found}
    assert sorted(name for names in found.values() for name in names) == sorted(data.store.ids)
    assert len(list(loaders["train"])) == len(loaders["train"])


def test_workers_yield_the_stored_weights(store):
    data = WeightDataModule(store, batch_size=8, num_workers=2)
    for batch in data.test_dataloader():
        for row, name in enumerate(batch.ids):
            assert all(torch.equal(batch.weights[key][row], value) for key, value in data.store[name].items())
            assert data.label_names[batch.labels[row]] == data.store.record(name)["label"]


def test_the_order_is_that_of_seed_and_epoch(store):
    def order(seed, epoch):
        loader = WeightDataModule(store, batch_size=8, num_workers=0, seed=seed).train_dataloader()
        loader.epoch = lambda: epoch
        return ids(loader)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)
    assert sorted(order(0, 0)) == sorted(order(0, 1))


def test_statistics_are_those_of_the_train_part(store):
    data = WeightDataModule(store, batch_size=8, val_fraction=0.3)
    flat = torch.cat([data.layout.flatten(batch.weights) for batch in data.batches("train")])
    assert len(flat) == data.num_fields("train") < len(data.store)
    chosen = flat[:, data.layout.trainable()]
    statistics = data.statistics()
    assert torch.allclose(statistics.mean, chosen.mean(0), atol=1e-6)
    assert torch.allclose(statistics.std, chosen.std(0, unbiased=False), atol=1e-6)
    assert data.statistics() is statistics


def test_a_dataset_travels_to_another_process(store):
    dataset = WeightDataModule(store, batch_size=8, num_workers=0).train_dataloader().dataset
    assert ids(pickle.loads(pickle.dumps(dataset))) == ids(dataset)


def test_an_empty_part_is_no_loader_and_no_train_part_is_an_error(tmp_path, make_store):
    data = WeightDataModule(str(make_store(tmp_path / "s", split=lambda index: "test")))
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match="no fields to train on"):
        data.train_dataloader()


@pytest.mark.parametrize(
    "name, value", [("batch_size", 0), ("num_workers", -1), ("val_fraction", 1.0), ("cache_mb", -1)]
)
def test_wrong_numbers_are_refused(name, value):
    with pytest.raises(UserError, match=rf"data.{name} is .* Allowed: .* What to do: "):
        WeightDataModule("anywhere", **{name: value})


PEAK = """
import sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from wsrl.training.weight_data import WeightDataModule

data = WeightDataModule(sys.argv[1], batch_size=256, num_workers=1, cache_mb=0)
data.statistics()
seen = sum(len(batch) for batch in data.train_dataloader())
assert seen == data.num_fields("train")
print(getrusage(RUSAGE_SELF).ru_maxrss, getrusage(RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_store(tmp_path, make_store):
    peaks = []
    for num in (10_000, 100_000):
        store = make_store(tmp_path / str(num), num=num, shards=num // 5_000)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(store)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peaks.append([int(word) for word in done.stdout.split()])
    for (small, large), who in zip(zip(*peaks), ("main", "worker")):
        assert large - small < 30_000, f"{who}: {small} kB for 10,000 fields, {large} kB for 100,000"
