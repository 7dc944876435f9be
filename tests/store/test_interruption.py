"""A build killed with SIGKILL at any instant ends, after a rerun, with the same rows: none twice, none missing."""

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from store_builds import build, fit_shard, kill_myself, result, run_and_die, start

from wsrl.errors import UserError
from wsrl.store import WeightStore
from wsrl.store.verifying import verify
from wsrl.store.writer import ShardWriter, finalize

# Everything through which the writer changes the directory; a kill is tried before and after each call.
OPERATIONS = ((os, "replace"), (os, "fsync"), (os, "posix_fallocate"), (Path, "unlink"), (Path, "mkdir"), (os, "rmdir"))
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def whole_build(directory: Path) -> None:
    build(directory, num=12, shards=2, batch=3)


def kill_at(instant: int):
    """Make the process kill itself at the given instant: twice the number of the operation, plus one for after it."""
    seen = 0

    def wrap(owner, name):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            nonlocal seen
            if seen == instant:
                kill_myself()
            outcome = original(*args, **kwargs)
            if seen + 1 == instant:
                kill_myself()
            seen += 2
            return outcome

        setattr(owner, name, counted)

    for operation in OPERATIONS:
        wrap(*operation)


def check_same_as_undisturbed(directory: Path) -> None:
    assert verify(directory).problems == []
    store = WeightStore.open(directory)
    expected = [r for r in map(result, range(12)) if r.weights]
    assert store.ids == [r.id for r in expected]
    for row, r in enumerate(expected):
        assert all(torch.equal(tensor, r.weights[name]) for name, tensor in store[row].items())


def kill_from(first: int, step: int, tmp_path: Path) -> int:
    """Kill at instants ``first``, ``first + step``, ... until a build ends undisturbed; the number of kills."""
    instant = first
    while True:
        directory = tmp_path / str(instant)
        status = run_and_die(lambda: whole_build(directory), lambda: kill_at(instant))  # noqa: B023
        if status == 0:
            return (instant - first) // step
        assert status == -signal.SIGKILL
        whole_build(directory)
        check_same_as_undisturbed(directory)
        shutil.rmtree(directory)
        instant += step


def test_killed_at_some_operations(tmp_path):
    assert kill_from(random.Random(os.getpid()).randrange(17), 17, tmp_path) >= 4


@pytest.mark.slow
def test_killed_before_and_after_every_operation(tmp_path):
    assert kill_from(0, 1, tmp_path) > 60


def kill_at_random_moments(directory: Path, times: int) -> None:
    """Start the same build again and again, killing it after a random time."""
    moments = random.Random(times)
    for _ in range(times):
        child = os.fork()
        if child == 0:
            try:
                whole_build(directory)
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    whole_build(directory)
    check_same_as_undisturbed(directory)


def test_killed_at_random_moments(tmp_path):
    kill_at_random_moments(tmp_path / "store", 5)


@pytest.mark.slow
def test_killed_often_at_random_moments(tmp_path):
    for repetition in range(10):
        kill_at_random_moments(tmp_path / str(repetition), 30)


def test_killed_writer_gives_its_lock_back(tmp_path):
    start(tmp_path)

    def hold():
        with ShardWriter(tmp_path, 0) as writer:
            writer.write_segment([result(index) for index in writer.indices[:4]])
            kill_myself()

    assert run_and_die(hold) == -signal.SIGKILL
    with ShardWriter(tmp_path, 0) as writer:
        assert writer.done == {0, 1, 2, 3} and not writer.discarded


def test_full_disk_is_told_and_the_build_continues(small_disk):
    """The disk fills up while segments are written, then while the shard is assembled."""
    store, ballast = small_disk.path / "store", small_disk.path / "ballast"
    start(store, num=20, shards=1, width=500)
    with ShardWriter(store, 0) as writer:
        writer.write_segment([result(index, 500) for index in range(10)])
        ballast.write_bytes(b"x" * os.statvfs(small_disk.path).f_bavail * 4096)
        with pytest.raises(UserError, match=r"the disk is full.*free some space, then run the same command again"):
            writer.write_segment([result(index, 500) for index in range(10, 20)])
        assert writer.done == set(range(10)) and not list(store.rglob("*.tmp"))
    ballast.unlink()
    with ShardWriter(store, 0) as writer:
        writer.write_segment([result(index, 500) for index in range(10, 20)])
        ballast.write_bytes(b"x" * os.statvfs(small_disk.path).f_bavail * 4096)
        with pytest.raises(UserError, match="the disk is full"):
            writer.finish()
        assert not list(store.rglob("*.tmp"))
    ballast.unlink()
    small_disk.remount("size=4m")
    fit_shard(store, 0, width=500)
    assert finalize(store) and verify(store).ok


def test_read_only_disk_is_told(small_disk):
    build(small_disk.path / "store", num=4, shards=1)
    small_disk.remount("ro")
    with pytest.raises(UserError, match="the file system is read-only"):
        start(small_disk.path / "other")
    with pytest.raises(UserError, match="the file system is read-only"):
        start(small_disk.path / "store", num=4, shards=1)
    assert len(WeightStore.open(small_disk.path / "store")) == 3
    assert verify(small_disk.path / "store").ok
    small_disk.remount("rw")


@contextlib.contextmanager
def read_only(folder: Path):
    """Let nobody write to a folder; root, whom permissions do not bind, becomes another user for the while."""
    nobody, root = 65534, os.geteuid() == 0
    for parent in folder.parents[:4] if root else ():
        parent.chmod(parent.stat().st_mode | 0o555)  # so that the other user gets as far as the folder
    folder.chmod(0o555)
    if root:
        os.seteuid(nobody)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_folder_made_read_only_during_a_build_is_told_and_the_build_continues(tmp_path):
    """Before a segment is written, and before the assembly."""
    store = tmp_path / "store"
    start(store, num=20, shards=1)
    refusal = r"no permission to write there.*run the same command again; finished work is kept"
    for first in (0, 10):
        batch = [result(index) for index in range(first, first + 10)]
        with ShardWriter(store, 0) as writer:
            assert writer.done == set(range(first))
            with read_only(writer.segments), pytest.raises(UserError, match=refusal):
                writer.write_segment(batch)
            writer.write_segment(batch)
    with ShardWriter(store, 0) as writer, read_only(store), pytest.raises(UserError, match=refusal):
        writer.finish()
    with read_only(store), pytest.raises(UserError, match="no permission to write there"):
        start(store, num=20, shards=1)
    fit_shard(store, 0)
    assert finalize(store) and verify(store).ok and not list(store.rglob("*.tmp"))
