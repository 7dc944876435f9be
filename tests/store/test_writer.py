"""The writer: what is written is what is read, other builds and folders are refused, damage is refitted."""

import json

import h5py
import numpy as np
import pytest
import torch
from store_builds import LABELS, build, fit_shard, result, small_layout, start

from wsrl.errors import UserError
from wsrl.store import FitResult, WeightStore
from wsrl.store.verifying import verify
from wsrl.store.writer import ShardWriter, finalize


def test_round_trip_is_exact(tmp_path):
    store = WeightStore.open(build(tmp_path / "store"))
    expected = [result(index) for index in range(40)]
    fitted = [r for r in expected if r.weights]
    assert store.ids == [r.id for r in fitted]
    assert store.failures == [(r.id, " ".join(r.reason.split())) for r in expected if not r.weights]
    assert store.indices.tolist() == [r.index for r in fitted]
    for row, r in enumerate(fitted):
        for key in (row, r.id, row - len(store)):
            weights = store[key]
            assert list(weights) == [spec.name for spec in store.layout]
            assert all(torch.equal(weights[name], r.weights[name]) for name in weights)
        record = store.record(r.id)
        metrics = record.pop("metrics")
        assert {name: value for name, value in metrics.items() if not np.isnan(value)} == r.metrics
        for name in ("index", "id", "label", "split", "seed", "status", "signal_sha256"):
            assert record[name] == getattr(r, name)
    assert store.layout == small_layout()
    assert store.label_names == LABELS


def test_finished_store_has_a_card_and_no_leftovers(tmp_path):
    build(tmp_path, shards=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", "README.md", "manifest.json", "shard-00000-of-00002.h5", "shard-00001-of-00002.h5"]
    card = (tmp_path / "README.md").read_text()
    assert "wsrl build toy --out toy" in card and "bad signal 3" in card and "psnr" in card


def test_one_shard_can_be_read_alone(tmp_path):
    build(tmp_path / "store")
    path = tmp_path / "shard-00001-of-00003.h5"
    (tmp_path / "store" / path.name).rename(path)
    alone = WeightStore.open(path)
    row = alone.row(result(20).id)
    assert torch.equal(alone[row]["layers.0.up"], result(20).weights["layers.0.up"])
    assert alone.label_names == LABELS and alone.layout == small_layout()


def test_files_do_not_depend_on_batches(tmp_path):
    one, other = build(tmp_path / "one", batch=3), build(tmp_path / "other", batch=40)
    for path in sorted(one.glob("*.h5")):
        with h5py.File(path) as a, h5py.File(other / path.name) as b:
            names = []
            a.visit(names.append)
            for name in names:
                if isinstance(a[name], h5py.Dataset):
                    assert np.array_equal(a[name][()], b[name][()], equal_nan=a[name].dtype.kind == "f")


@pytest.mark.parametrize(("num", "shards"), [(1, 1), (2, 3), (4, 2), (0, 1)])
def test_tiny_and_empty_shards(tmp_path, num, shards):
    store = WeightStore.open(build(tmp_path, num=num, shards=shards))
    assert len(store) + len(store.failures) == num
    assert verify(tmp_path).ok
    assert sum(map(len, store.batches(2))) == len(store)


def test_continuing_the_same_build_is_accepted(tmp_path):
    start(tmp_path)
    fit_shard(tmp_path, 0)
    start(tmp_path)
    fit_shard(tmp_path, 1)
    fit_shard(tmp_path, 0)
    assert not finalize(tmp_path)
    assert len(WeightStore.open(tmp_path, partial=True)) == len([i for i in range(26) if result(i).weights])
    with pytest.raises(UserError, match=r"not finished: 2 of 3 shards.*wsrl build toy"):
        WeightStore.open(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit": {"steps": 6, "lr": 0.01}}, r"fit\.steps is 5 there, and 6 is asked"),
        ({"representation": {"kind": "mlora", "rank": 2}}, r'representation\.kind is "lora" there'),
        ({"base_sha256": "ab"}, "base_sha256 is null there"),
        ({"num_signals": 41}, "num_signals is 40 there, and 41"),
        ({"num_shards": 4}, "num_shards is 3 there, and 4"),
        ({"label_names": ("left",)}, "label_names is"),
        ({"layout": small_layout(6)}, "layout is"),
    ],
)
def test_another_build_in_the_folder_is_refused(tmp_path, changes, message):
    start(tmp_path)
    with pytest.raises(UserError, match=message):
        start(tmp_path, **changes)


def test_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"an output folder that is not ours: it holds 'holiday.jpg'"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "store").write_text("x")
    with pytest.raises(UserError, match="Cannot write"):
        start(tmp_path / "store")
    with pytest.raises(UserError, match="part of the path is a file"):
        start(tmp_path / "store" / "below")


def test_base_is_saved_once_and_completely(tmp_path):
    def broken(path):
        (path / "config.json").write_text("{}")
        raise UserError("interrupted")

    with pytest.raises(UserError, match="interrupted"):
        start(tmp_path, base_sha256="ab", save_base=broken)
    assert not (tmp_path / "base").exists() and not list(tmp_path.glob(".base*"))
    start(tmp_path, base_sha256="ab", save_base=lambda path: (path / "config.json").write_text("1"))
    start(tmp_path, base_sha256="ab", save_base=broken)
    assert (tmp_path / "base" / "config.json").read_text() == "1"


def test_second_writer_of_a_shard_is_refused(tmp_path):
    start(tmp_path)
    with (
        ShardWriter(tmp_path, 0),
        pytest.raises(UserError, match=r"Shard 0 of .* is being written by another process"),
        ShardWriter(tmp_path, 0),
    ):
        pass
    with ShardWriter(tmp_path, 0), ShardWriter(tmp_path, 1):
        pass


def test_unknown_shard_and_unknown_label_are_refused(tmp_path):
    start(tmp_path)
    with pytest.raises(UserError, match=r"Shard 3 is not in .*Allowed: 0 to 2"):
        ShardWriter(tmp_path, 3)
    stranger = FitResult(index=0, id="a", weights=result(0).weights, label="up")
    with ShardWriter(tmp_path, 0) as writer, pytest.raises(UserError, match="label 'up'"):
        writer.write_segment([stranger])


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage", "empty"])
def test_damaged_segment_is_discarded_and_refitted(tmp_path, damage):
    start(tmp_path)
    with ShardWriter(tmp_path, 0) as writer:
        writer.write_segment([result(index) for index in range(5)])
        writer.write_segment([result(index) for index in range(5, 9)])
    path = sorted((tmp_path / "segments" / "00000").glob("*.h5"))[0]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        with h5py.File(path) as file:
            data[file["weights/layers.0.up"].id.get_offset() + 7] ^= 1
    path.write_bytes({"truncate": data[:-100], "flip": data, "garbage": b"x" * 500, "empty": b""}[damage])
    with ShardWriter(tmp_path, 0) as writer:
        assert writer.done == set(range(5, 9))
        assert [name for name, _ in writer.discarded] == [path.name]
    for shard in range(3):
        fit_shard(tmp_path, shard)
    assert finalize(tmp_path) and verify(tmp_path).ok


def test_deleted_shard_is_made_again(tmp_path):
    build(tmp_path)
    (tmp_path / "shard-00001-of-00003.h5").unlink()
    start(tmp_path)
    for shard in range(3):
        fit_shard(tmp_path, shard)
    assert finalize(tmp_path) and verify(tmp_path).ok


def test_manifest_is_plain_json_with_hashes(tmp_path):
    manifest = json.loads((build(tmp_path) / "manifest.json").read_text())
    assert manifest["schema"] == "wsrl-store" and manifest["version"] == 2 and manifest["complete"] is True
    assert [entry["count"] + entry["failures"] for entry in manifest["shards"]] == [13, 13, 14]
    assert all(len(entry["sha256"]) == 64 for entry in manifest["shards"])
