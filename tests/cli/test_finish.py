"""``wsrl build --finish``: shards that were built one by one become a store."""

import shutil
import threading
import time

from killer import shard_bytes

from wsrl.cli.main import main
from wsrl.store import WeightStore
from wsrl.store.card import data_card
from wsrl.store.writer import ShardWriter, finalize


def finish(out, capsys):
    status = main(["build", "--finish", "--out", str(out)])
    return status, capsys.readouterr().out


def test_missing_shards_are_listed_and_the_last_one_completes(build, tmp_path, capsys):
    out = tmp_path / "store"
    assert build(out, "--shard", "1/3") == 0
    status, told = finish(out, capsys)
    assert status == 1 and "2 shards are missing" in told
    assert "0/3: 0 of 6 signals done" in told and "2/3: 0 of 7 signals done" in told and "1/3" not in told
    with ShardWriter(out, 2):
        assert "2/3: another process is at work on it" in finish(out, capsys)[1]
    assert build(out, "--shard", "0/3") == 0 and build(out, "--shard", "2/3") == 0
    status, told = finish(out, capsys)
    assert status == 0 and "20 fields, complete" in told
    assert not (out / "segments").exists()


def test_a_shard_killed_before_its_assembly_is_assembled(build, tmp_path, capsys, monkeypatch):
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert build(out) == 130
    assert shard_bytes(out) == {}
    assert finish(out, capsys)[0] == 0
    assert build(tmp_path / "whole") == 0
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


def test_of_two_shards_that_end_at_once_the_later_state_is_on_the_card(build, tmp_path, monkeypatch):
    """The first process is held up while it writes the card of a store that still lacks a shard."""
    out, held = tmp_path / "store", threading.Event()
    assert build(out, "--shard", "0/2") == 0

    def slow_card(store):
        card = data_card(store)
        if not store.manifest["complete"]:
            held.set()
            time.sleep(1.0)  # the other one has finished by then where nothing makes it wait
        return card

    monkeypatch.setattr("wsrl.store.directory.data_card", slow_card)
    first = threading.Thread(target=finalize, args=(out,))
    first.start()
    held.wait()
    with monkeypatch.context() as patch:
        patch.setattr("wsrl.store.directory.data_card", data_card)
        assert build(out, "--shard", "1/2") == 0
    first.join()
    assert "not finished" not in (out / "README.md").read_text()


def test_only_a_store_is_finished(tmp_path, refused, capsys):
    assert "not a weight store" in refused("build", "--finish", "--out", tmp_path)
    assert main(["build", "--finish"]) == 2
    assert "required: out" in capsys.readouterr().err


def test_a_shard_removed_from_a_complete_store_is_missing(build, tmp_path, capsys):
    out = tmp_path / "store"
    assert build(out, "--shards", "2") == 0
    with WeightStore.open(out) as store:
        assert len(store) == 20
    shutil.move(out / "shard-00001-of-00002.h5", tmp_path / "away.h5")
    status, told = finish(out, capsys)
    assert status == 1 and "1/2: 0 of 10 signals done" in told
