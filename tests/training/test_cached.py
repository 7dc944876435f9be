"""The part that is kept in memory: the stored numbers, one order for a seed, equal shares, a bound."""

import pytest
import torch

from wsrl.errors import UserError
from wsrl.store.splits import Share
from wsrl.training.weight_data import CachedPart, WeightDataModule


@pytest.fixture
def store(tmp_path, make_store):
    return str(make_store(tmp_path / "store", num=61, shards=3))


def modules(store):
    return [WeightDataModule(store, batch_size=8, num_workers=0, cache_mb=size) for size in (64, 0)]


def by_id(batches, layout, metric):
    rows = {}
    for batch in batches:
        flat = layout.flatten(batch.weights)
        for i, name in enumerate(batch.ids):
            rows[name] = (flat[i], int(batch.labels[i]), float(batch.metrics[metric][i]))
    return rows


def test_memory_and_files_hold_the_same(store):
    found = []
    for data in modules(store):
        data.keep_metric("psnr")
        found.append(by_id(data.train_dataloader(), data.layout, "psnr"))
        assert by_id(data.batches("train"), data.layout, "psnr").keys() == found[-1].keys()
    kept, read = found
    assert len(kept) == data.num_fields("train") and kept.keys() == read.keys()
    assert all(torch.equal(kept[name][0], read[name][0]) and kept[name][1:] == read[name][1:] for name in kept)
    name = next(iter(kept))
    assert kept[name][2] == pytest.approx(data.store.record(name)["metrics"]["psnr"])


def test_only_what_fits_is_kept(store):
    small, none = modules(store)
    assert small.train_dataloader().dataset.cached is not None and small.test_dataloader().dataset.cached is None
    assert none.train_dataloader().dataset.cached is None
    assert torch.equal(small.statistics().mean, none.statistics().mean)


def test_the_shares_of_processes_are_disjoint_and_equally_long(store):
    data = modules(store)[0]
    part = data._cached_train
    assert isinstance(part, CachedPart)
    shares = [Share(number=i, count=2, equal=True, seed=5) for i in range(2)]
    names = [[name for batch in part.batches(4, share) for name in batch.ids] for share in shares]
    assert len(names[0]) == len(names[1]) == data.num_fields("train") // 2 and not set(names[0]) & set(names[1])
    other = [name for batch in part.batches(4, Share(number=0, count=2, equal=True, seed=6)) for name in batch.ids]
    assert other != names[0]


def test_another_metric_is_read_anew_and_an_unknown_one_refused(store):
    data = modules(store)[0]
    assert next(iter(data.train_dataloader())).metrics == {}
    for name in ("psnr", "ssim"):
        data.keep_metric(name)
        assert list(next(iter(data.train_dataloader())).metrics) == [name]
    with pytest.raises(UserError, match=r"has no metric 'pnsr'.* Allowed: psnr, ssim"):
        data.keep_metric("pnsr")
