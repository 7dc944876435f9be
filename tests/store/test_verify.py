"""Verification finds a flipped byte anywhere, and every other way in which a store can be wrong."""

import json
import shutil

import h5py
import pytest
from store_builds import build, fit_shard, result, small_layout, start

from wsrl.cli import info as info_command
from wsrl.cli import verify as verify_command
from wsrl.durable import file_sha256
from wsrl.errors import UserError
from wsrl.store import WeightStore, rows
from wsrl.store.shard import ShardFile
from wsrl.store.verifying import verify

SHARD = "shard-00000-of-00002.h5"


@pytest.fixture(scope="module")
def pristine(fast_root):
    return build(fast_root / "pristine", num=30, shards=2, batch=20)


@pytest.fixture
def store_path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "store")


def dataset_names(path) -> list[str]:
    with h5py.File(path) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def flip(path, name: str, row: int) -> None:
    with h5py.File(path) as file:
        dataset = file[name]
        row_bytes = dataset.id.get_storage_size() // len(dataset)
        offset = dataset.id.get_offset() + row * row_bytes + row_bytes - 1
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def accept_hash(store_path) -> None:
    """Record the damaged file's hash, so that only the rows' own checksums can tell."""
    manifest = json.loads((store_path / "manifest.json").read_text())
    manifest["shards"][0]["sha256"] = file_sha256(store_path / SHARD)
    (store_path / "manifest.json").write_text(json.dumps(manifest))


def test_a_good_store_is_well(pristine):
    report = verify(pristine)
    assert report.ok and (report.num_rows, report.num_failures) == (27, 3)


def test_a_flipped_byte_in_any_dataset_is_found(pristine, tmp_path):
    names = dataset_names(pristine / SHARD)
    assert len(names) == 18
    for number, name in enumerate(names):
        store_path = shutil.copytree(pristine, tmp_path / str(number))
        row = 0 if name.startswith(("failures", "blocks")) else 7
        flip(store_path / SHARD, name, row)
        assert "SHA-256" in str(verify(store_path).problems[0]), name
        accept_hash(store_path)
        problems = [problem for problem in verify(store_path).problems if problem.row is not None]
        assert [(problem.file, problem.row) for problem in problems] == [(SHARD, row)], name
        store = WeightStore.open(store_path)
        if name.startswith("failures"):
            continue
        if name == "blocks/fingerprint":
            with pytest.raises(UserError, match=f"{SHARD}, row 0: the block that begins here does not match"):
                list(store.batches(4, shuffle=True))
            continue
        with pytest.raises(UserError, match=rf"{SHARD}, row 7: the row does not match its checksum.*wsrl verify"):
            store[7]
        with pytest.raises(UserError, match=f"{SHARD}, row 7"):
            list(store.batches(4, shuffle=True))
        with pytest.raises(UserError, match=f"{SHARD}, row 7"):
            list(store.batches(4, split=store.splits()[7]))
        assert len(next(store.batches(100, check=False))) == 27


def test_a_flipped_byte_anywhere_in_the_file_is_found(store_path):
    path = store_path / SHARD
    good = path.read_bytes()
    for offset in range(0, len(good), 997):
        data = bytearray(good)
        data[offset] ^= 1
        path.write_bytes(data)
        assert not verify(store_path).ok, offset


CHECKED = ("weights", "fields", "metrics", "checksum", "failures")


def positions(path) -> list[tuple[str, int, int]]:
    """Name, row and place in the file of every byte of every column, weights, ids, labels and metrics among them."""
    found = []
    with h5py.File(path) as file:
        for name in dataset_names(path):
            if name.startswith(CHECKED):
                count, size = len(file[name]), file[name].id.get_storage_size()
                offset = file[name].id.get_offset()
                found += [(name, place * count // size, offset + place) for place in range(size)]
    return found


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_byte_is_found_in_its_row(tmp_path, step):
    """All positions, each with another bit (every thirteenth where time is short): the rows' own checksums tell."""
    store_path = build(tmp_path / "store", num=5, shards=1, width=2)
    path = store_path / "shard-00000-of-00001.h5"
    good = path.read_bytes()
    layout = small_layout(2)
    with ShardFile(path) as shard:
        assert not len(rows.wrong_rows(shard.read(), layout)) and not len(rows.wrong_failures(shard.failures()))
    seen = set()
    for name, row, offset in positions(path)[::step]:
        data = bytearray(good)
        data[offset] ^= 1 << (offset % 8)
        path.write_bytes(data)
        with ShardFile(path) as shard:
            if name.startswith("failures"):
                wrong = rows.wrong_failures(shard.failures())
            else:
                table = shard.read()
                wrong = rows.wrong_rows(table, layout)
                assert shard.agrees(0, [column for _, column in sorted(table.items())]) is False, (name, offset)
            assert wrong.tolist() == [row], (name, row, offset)
        seen.add(name)
    assert {"weights/layers.0.up", "fields/id", "fields/label", "metrics/psnr"} <= seen and (
        step > 1 or len(seen) == 17
    )


def test_verify_finds_a_flipped_byte_anywhere_in_the_manifests_hashes(store_path):
    """The manifest's own record of a shard: any change of its hash, size or count is reported."""
    path = store_path / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest["shards"][0]
    for place in range(0, 64, 9):
        digits = list(entry["sha256"])
        digits[place] = "0" if digits[place] != "0" else "1"
        path.write_text(json.dumps(manifest | {"shards": [entry | {"sha256": "".join(digits)}, manifest["shards"][1]]}))
        assert "SHA-256" in str(verify(store_path).problems[0]), place
    for key in ("count", "failures"):
        path.write_text(json.dumps(manifest | {"shards": [entry | {key: entry[key] + 1}, manifest["shards"][1]]}))
        assert any(f"{key} is" in str(problem) for problem in verify(store_path).problems)
    path.write_text(json.dumps(manifest))
    assert verify(store_path).ok


def test_truncated_shard_is_refused(store_path):
    path = store_path / SHARD
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=rf"{SHARD}: the file is truncated or damaged: \d+ bytes instead of"):
        WeightStore.open(store_path)
    assert any("truncated" in str(problem) for problem in verify(store_path).problems)
    with pytest.raises(UserError, match="truncated"):
        WeightStore.open(path)


def test_missing_shard_is_refused(store_path):
    (store_path / SHARD).unlink()
    with pytest.raises(UserError, match=f"{SHARD}: the file is missing"):
        WeightStore.open(store_path)
    assert str(verify(store_path).problems[0]) == f"{SHARD}: the file is missing"


def test_shard_of_another_build_is_refused(store_path, tmp_path):
    other = build(tmp_path / "other", num=30, shards=2, batch=20, fit={"steps": 6, "lr": 0.01})
    shutil.copy(other / SHARD, store_path / SHARD)
    with pytest.raises(UserError, match="another build: its fit"):
        WeightStore.open(store_path)[0]
    accept_hash(store_path)
    assert [str(problem) for problem in verify(store_path).problems] == [
        f"{SHARD}: attributes.fit.steps is not as in the manifest"
    ]


def test_swapped_shard_files_are_found(store_path):
    second = store_path / "shard-00001-of-00002.h5"
    (store_path / SHARD).rename(store_path / "x")
    second.rename(store_path / SHARD)
    (store_path / "x").rename(second)
    assert any("of another shard" in str(problem) for problem in verify(store_path).problems)


def test_newer_schema_is_refused(store_path):
    manifest = json.loads((store_path / "manifest.json").read_text())
    (store_path / "manifest.json").write_text(json.dumps(manifest | {"version": 3}))
    with pytest.raises(UserError, match=r"schema version 3, newer than .*Allowed: versions up to 2.*update wsrl"):
        WeightStore.open(store_path)
    path = store_path / SHARD
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = "3"
    with pytest.raises(UserError, match=f"{SHARD} has schema version 3"):
        WeightStore.open(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("[]", "not a JSON object"), ('{"a": 1}', "schema is None"), (None, "no manifest.json")],
)
def test_bad_manifest_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    for use in (WeightStore.open, verify):
        with pytest.raises(UserError, match=message):
            use(tmp_path)


def test_missing_base_is_found(tmp_path):
    path = build(tmp_path, num=4, shards=1, base_sha256="ab")
    assert "lacks its base field" in str(verify(path).problems[0])


def test_commands_print_what_is_there(store_path, capsys):
    assert verify_command.main([str(store_path)]) == 0
    assert "27 fields, 3 recorded failures: all is well" in capsys.readouterr().out
    assert info_command.main([str(store_path)]) == 0
    printed = capsys.readouterr().out
    for text in ("complete", "toy (30 signals)", "ünten", "psnr", "bad signal 14", "layers.0.up", "wsrl build toy"):
        assert text in printed
    flip(store_path / SHARD, "weights/layers.0.up", 3)
    assert verify_command.main([str(store_path), "--show", "1"]) == 1
    printed = capsys.readouterr().out
    assert "and 1 more" in printed and "2 problems" in printed


def test_unfinished_store_is_shown_and_reported(tmp_path, capsys):
    start(tmp_path)
    fit_shard(tmp_path, 1)
    assert info_command.main([str(tmp_path)]) == 0
    assert "unfinished: 1 of 3 shards" in capsys.readouterr().out
    assert "unfinished: 1 of 3 shards" in str(verify(tmp_path).problems[0])
    assert result(14).id not in WeightStore.open(tmp_path, partial=True).ids
