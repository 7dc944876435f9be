"""Builds by several processes: the same store as by one, also where a worker is killed."""

import os

import pytest
from killer import killing_a_worker, shard_bytes

from wsrl.store.writer import ShardWriter

SIGNALS = ("--source", "{limit: 100}", "--shards", "2", "--threads", "1")
SLOWER = ("--fit.steps", "150")


def test_two_workers_give_the_same_bytes_as_one(build, tmp_path, capsys):
    assert build(tmp_path / "one", *SIGNALS) == 0
    assert build(tmp_path / "two", *SIGNALS, "--workers", "2") == 0
    assert len(shard_bytes(tmp_path / "one")) == 2
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    assert "2 shards: 200/200" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(build, tmp_path, capsys):
    with killing_a_worker(tmp_path / "two", [os.getpid()], "spawn_main") as killed:
        assert build(tmp_path / "two", *SIGNALS, *SLOWER, "--workers", "2") == 0
    assert len(killed) == 1
    told = capsys.readouterr().err
    assert "was killed by SIGKILL; another one goes on with it" in told
    assert build(tmp_path / "one", *SIGNALS, *SLOWER) == 0
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_build_and_leave_it_resumable(build, tmp_path, capsys):
    with killing_a_worker(tmp_path / "store", [os.getpid()], "spawn_main", times=6) as killed:
        assert build(tmp_path / "store", *SIGNALS, "--workers", "2") == 2
    assert len(killed) == 6
    told = capsys.readouterr().err
    assert "shard 1 (the last one was killed by SIGKILL)" in told and "run the same command again" in told
    assert build(tmp_path / "store", *SIGNALS, "--workers", "2") == 0
    assert build(tmp_path / "one", *SIGNALS) == 0
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "store")


@pytest.mark.slow
def test_what_a_worker_cannot_do_is_a_message(build, tmp_path, capsys):
    assert build(tmp_path / "store", *SIGNALS, "--shard", "0/2") == 0
    with ShardWriter(tmp_path / "store", 1):
        assert build(tmp_path / "store", *SIGNALS, "--workers", "2") == 2
    assert "Shard 1 of" in capsys.readouterr().err
    assert build(tmp_path / "store", *SIGNALS, "--workers", "2") == 0
