"""The reader: every row once per epoch, the same order from the same generator, in workers and in flat memory."""

import multiprocessing
import pickle
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from store_builds import build, result, small_layout, start

from wsrl.errors import UserError
from wsrl.store import FitResult, WeightStore, batches, shard
from wsrl.store.checksums import fingerprint
from wsrl.store.writer import ShardWriter, finalize


@pytest.fixture(scope="module")
def store(fast_root):
    with WeightStore.open(build(fast_root / "reader", num=110, shards=4, batch=28)) as opened:
        yield opened


@pytest.fixture(params=[(256, 16), (3, 2), (1, 1)], ids=["one pool", "many pools", "single rows"])
def blocks(request, monkeypatch):
    """Blocks and pools so small that a small store has many of them."""
    monkeypatch.setattr(shard, "BLOCK_ROWS", request.param[0])
    monkeypatch.setattr(batches, "POOL_BLOCKS", request.param[1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids_of(found) -> list[str]:
    return [name for batch in found for name in batch.ids]


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_comes_exactly_once(store, blocks, size, shuffle):
    found = list(store.batches(size, shuffle=shuffle))
    assert all(len(batch) == size for batch in found[:-1]) and 0 < len(found[-1]) <= size
    assert (sorted(ids_of(found)) if shuffle else ids_of(found)) == store.ids


def test_batches_hold_what_was_stored(store, blocks):
    for batch in store.batches(8, shuffle=True, generator=generator()):
        for row, name in enumerate(batch.ids):
            expected = result(int(name.rsplit("/")[-1]))
            assert all(torch.equal(tensor[row], expected.weights[key]) for key, tensor in batch.weights.items())
            assert batch.metrics["psnr"][row] == expected.metrics["psnr"]
            label = int(batch.labels[row])
            assert (None if label < 0 else store.label_names[label]) == expected.label
    assert batch.labels.dtype == torch.int64 and batch.weights["layers.0.up"].dtype == torch.float32


def test_shuffling_is_deterministic_and_does_shuffle(store, blocks):
    first = ids_of(store.batches(8, shuffle=True, generator=generator(1)))
    assert first == ids_of(store.batches(8, shuffle=True, generator=generator(1)))
    assert first != ids_of(store.batches(8, shuffle=True, generator=generator(2)))
    assert first != store.ids
    going = generator(1)
    assert ids_of(store.batches(8, shuffle=True, generator=going)) == first
    assert ids_of(store.batches(8, shuffle=True, generator=going)) != first, "a second epoch has another order"


def test_split_and_drop_last(store, blocks):
    expected = [name for name, split in zip(store.ids, store.splits()) if split == "test"]
    assert ids_of(store.batches(4, split="test")) == expected
    assert sorted(ids_of(store.batches(4, shuffle=True, split="test"))) == sorted(expected)
    assert store.count("test") == len(expected) and store.count() == len(store)
    assert {len(batch) for batch in store.batches(7, split="test", drop_last=True)} == {7}
    with pytest.raises(UserError, match=r"no split 'validation'.*Allowed: test, train"):
        next(store.batches(4, split="validation"))


@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_share_the_rows(store, blocks, shuffle):
    parts = [ids_of(store.batches(4, shuffle, generator(3), worker=(i, 3))) for i in range(3)]
    joined = [name for part in parts for name in part]
    assert sorted(joined) == sorted(store.ids) and len(joined) == len(set(joined))


def test_wrong_options_are_refused(store):
    with pytest.raises(UserError, match="batch size is 0"):
        next(store.batches(0))
    with pytest.raises(UserError, match=r"worker is \(2, 2\)"):
        next(store.batches(1, worker=(2, 2)))
    with pytest.raises(UserError, match="need a generator"):
        next(store.batches(1, shuffle=True, worker=(0, 2)))


def test_unknown_keys(store):
    with pytest.raises(UserError, match=r"no field 'toy/x'.*such as 'toy/é/00000'"):
        store["toy/x"]
    with pytest.raises(UserError, match="no field 'toy/é/00003': bad signal 3"):
        store[result(3).id]
    for row in (len(store), -len(store) - 1):
        with pytest.raises(IndexError):
            store[row]
    with pytest.raises(UserError, match=r"no metric 'ssim'.*Allowed: odd, psnr, steps"):
        store.metrics("ssim")


def test_columns(store):
    fitted = [r for r in map(result, range(110)) if r.weights]
    assert store.metrics("psnr").tolist() == [r.metrics["psnr"] for r in fitted]
    assert np.isnan(store.metrics("odd")).tolist() == ["odd" not in r.metrics for r in fitted]
    assert store.splits().tolist() == [r.split for r in fitted]
    assert [store.label_names[i] if i >= 0 else None for i in store.labels()] == [r.label for r in fitted]
    assert set(store.statuses()) == {"ok"}


def test_pickled_store_reads_the_same(store):
    assert len(store["toy/é/00020"]) == 2, "its files are open"
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy[5]["layers.0.up"], store[5]["layers.0.up"])


def read_in_worker(store, part, queue):
    queue.put(ids_of(store.batches(8, shuffle=True, generator=generator(), worker=part)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers_open_their_own_files(store):
    assert len(store[0]) == 2, "the parent has the files open before the fork"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=read_in_worker, args=(store, (i, 2), queue)) for i in range(2)]
    for worker in workers:
        worker.start()
    found = queue.get(timeout=60) + queue.get(timeout=60)
    for worker in workers:
        worker.join()
    queue.close()
    queue.join_thread()
    assert sorted(found) == store.ids
    assert torch.equal(store[-1]["layers.0.up"], result(109).weights["layers.0.up"])


def test_few_files_are_open_at_once(store, monkeypatch):
    monkeypatch.setattr("wsrl.store.shards.MAX_OPEN", 2)
    store.close()
    assert ids_of(store.batches(8, shuffle=True)) and len(store.ids) == len(store)
    assert sum(part._file is not None for part in store.shards.files) <= 2


MEASURE = """
import sys, torch
from wsrl.store import WeightStore

def resident_kb():
    # its own memory: pages of the files belong to the system, which gives them up when memory is short
    resident, shared = open("/proc/self/statm").read().split()[1:3]
    return (int(resident) - int(shared)) * 4

store = WeightStore.open(sys.argv[1])
sizes = []
for shuffle in (True, False):
    for batch in store.batches(256, shuffle, torch.Generator().manual_seed(0)):
        sizes.append(resident_kb())
store[store.id_of(99_000)]
sizes.append(resident_kb())
print(len(store), max(sizes) - max(sizes[:40]))
"""


@pytest.mark.slow
def test_memory_is_flat_over_100000_fields(tmp_path):
    """About 170 MB of weights; reading them twice may add one pool of blocks and 16 bytes per id."""
    width = 200
    template = result(0, width).weights

    def fake(index):
        weights = {name: tensor + index for name, tensor in template.items()}
        return FitResult(index=index, id=f"field/{index}", weights=weights, metrics={"psnr": 1.0})

    start(tmp_path, num=100_000, shards=4, width=width, layout=small_layout(width))
    for number in range(4):
        with ShardWriter(tmp_path, number) as writer:
            for first in range(writer.indices.start, writer.indices.stop, 1000):
                writer.write_segment([fake(i) for i in range(first, min(first + 1000, writer.indices.stop))])
            writer.finish()
    finalize(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.h5")) > 160e6
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, growth_kb = map(int, done.stdout.split())
    assert count == 100_000 and growth_kb < 40_000, growth_kb


def test_a_batch_keeps_its_values_while_later_ones_are_made(store):
    """Memory of batches is used again, but only where nobody holds a tensor of them, not even a view of one."""
    kept, copies = [], []
    for batch in store.batches(8, shuffle=True, generator=generator()):
        kept.append(batch.weights["layers.0.up"][0].view(-1)[1:])
        copies.append(kept[-1].clone())
    assert len(kept) > 8 and all(torch.equal(*pair) for pair in zip(kept, copies))
    assert len({view.data_ptr() for view in kept}) == len(kept)
    places = {batch.weights["layers.0.up"].data_ptr() for batch in store.batches(8, drop_last=True)}
    assert len(places) <= 3, "what nobody holds is used again"


def test_an_old_store_without_fingerprints_is_read_and_checked(store, tmp_path):
    path = shutil.copytree(store.directory, tmp_path / "old")
    for name in sorted(path.glob("*.h5")):
        with h5py.File(name, "r+") as file:
            del file["blocks"]
    with WeightStore(path, store.manifest) as old:
        assert sorted(ids_of(old.batches(8, shuffle=True))) == sorted(store.ids)
    with h5py.File(name, "r+") as file:
        file["fields/seed"][5] += 1
    with pytest.raises(UserError, match=f"{name.name}, row 5: the row does not match its checksum"):
        ids_of(WeightStore(path, store.manifest).batches(8, shuffle=True))


def test_a_fingerprint_tells_every_flipped_byte_and_every_order():
    data = np.random.default_rng(0).integers(0, 256, 1003, dtype=np.uint8)
    assert len({fingerprint([data]), fingerprint([data[:500], data[500:]]), fingerprint([data[::-1]])}) == 3
    for place in range(len(data)):
        other = data.copy()
        other[place] ^= 1 << (place % 8)
        assert fingerprint([other]) != fingerprint([data]), place
    assert fingerprint([data]) == fingerprint([data.copy()])
    assert fingerprint([np.arange(100_000, dtype="<u8")]) == 11454602755897511818, "the format has changed"


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "numpy"])
def test_fingerprints_are_the_same_with_and_without_the_kernel(kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr("wsrl.store.native.load", lambda: (None, "no compiler"))
    data = np.random.default_rng(1).integers(0, 256, 700_003, dtype=np.uint8)
    columns = [data[:1], data[1:1], data[3:40], data[41:1041].reshape(10, 100), data[1:600_002]]
    assert fingerprint(columns) == 12114168249801459068


def test_a_file_that_loses_its_end_while_it_is_read_is_told(tmp_path):
    """Touching mapped pages beyond the end of a file would kill the process."""
    path = build(tmp_path, num=12, shards=1, width=3000) / "shard-00000-of-00001.h5"
    with WeightStore.open(tmp_path) as store:
        assert len(next(store.batches(4, check=False))) == 4
        with open(path, "r+b") as file:
            file.truncate(8192)
        with pytest.raises(UserError, match=rf"{path.name}, row 0: weights/.* cannot be read"):
            next(store.batches(4))
    shorter = tmp_path / "shard-00000-of-00001.h5"
    with pytest.raises(UserError, match="truncated or damaged"):
        WeightStore.open(shorter)


@pytest.mark.parametrize("key", [0.5, 1.0, True, None, slice(0, 2), [0, 1], (0,), b"x", np.float32(1), np.bool_(True)])
def test_what_is_no_row_is_refused(store, key):
    with pytest.raises(UserError, match=r"is no row of a store.*Allowed: one id, or one whole number.*do: for several"):
        store[key]


def test_whole_numbers_of_any_library_are_rows(store):
    for key in (np.int64(2), np.uint8(2), torch.tensor(2), 2 - len(store)):
        assert store.row(key) == 2
    for key in (len(store), -len(store) - 1):
        with pytest.raises(IndexError, match=f"row {key} of a store"):
            store[key]


def test_a_store_opened_by_a_relative_path_is_read_from_elsewhere(tmp_path, monkeypatch):
    """facebookresearch/hydra#922, hippynn#202: the working folder changes between opening and reading."""
    build(tmp_path / "store", num=8, shards=2)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path)
    with WeightStore.open("store") as opened:
        one = WeightStore.open("store/shard-00000-of-00002.h5")
        expected = opened[5]
        opened.close()
        monkeypatch.chdir(tmp_path / "away")
        assert all(map(torch.equal, opened[5].values(), expected.values()))
        assert len(pickle.loads(pickle.dumps(opened)).ids) == len(opened) and one.record(0)["index"] == 0


def test_a_split_is_found_by_another_spelling(tmp_path):
    with WeightStore.open(build(tmp_path / "store", num=8, shards=1)) as store:
        assert store.count("Training") == store.count("train") > 0
