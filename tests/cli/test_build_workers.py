"""Builds by several processes: the same store as by one, also where a worker is killed."""

import os

import pytest
import torch
from killer import killing_a_worker, shard_bytes

from wsrl.errors import UserError
from wsrl.fitting.build import Compute
from wsrl.fitting.devices import choose_device, worker_devices, worker_threads
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


def test_devices_of_the_workers():
    assert worker_devices("cpu", None) == ["cpu"] and worker_devices("cpu", 3) == ["cpu"] * 3
    found = worker_devices("auto", None)
    assert found == ([f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"])
    assert worker_threads(3, 2) == 3 and worker_threads(None, 10_000) == 1
    with pytest.raises(UserError, match="--workers is 0"):
        worker_devices("cpu", 0)
    with pytest.raises(UserError, match="--threads is 0"):
        worker_threads(0, 1)
    with pytest.raises(UserError, match="no device 'meta'"):
        choose_device("meta")


def test_all_visible_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # no GPU is here to count
    assert worker_devices("auto", None) == ["cuda:0", "cuda:1"]
    assert worker_devices("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]


def test_engines():
    with pytest.raises(UserError, match="local, ray"):
        Compute(engine="slurm")
    with pytest.raises(UserError, match="workers of its own"):
        Compute(engine="ray", workers=2)
