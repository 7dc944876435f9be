"""``wsrl build`` killed with SIGKILL and started again ends row for row like an undisturbed build."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import h5py
import pytest
import torch

from wsrl.cli.main import main
from wsrl.store import FitResult, WeightStore
from wsrl.store.writer import ShardWriter

OPTIONS = ("--fit.steps", "3", "--fit.batch_size", "4", "--device", "cpu", "--shards", "2")


def command(out, base, limit):
    source = ["--source", f"{{limit: {limit}}}"]
    return ["build", "digits", *source, "--base", str(base), "--out", str(out), *OPTIONS]


def start(argv):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "wsrl.cli.main", *argv],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_building(process):
    """Wait for the line that a build prints before it fits."""
    for line in process.stderr:
        if "trainable of" in line:
            return


def kill_while_building(argv, delay_s):
    """Kill the build ``delay_s`` after it began to fit; returns whether it was still running."""
    process = start(argv)
    wait_until_building(process)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def check_equal(found, expected):
    assert main(["verify", str(found)]) == 0
    with WeightStore.open(found) as one, WeightStore.open(expected) as two:
        assert list(one.ids) == list(two.ids) and len(set(one.ids)) == len(one)
        for key in two.ids:
            assert all(torch.equal(tensor, one[key][name]) for name, tensor in two[key].items())
        assert (one.metrics("psnr") == two.metrics("psnr")).all()


def field_result(store, row):
    """What an engine would have yielded for a row of a store."""
    record = store.record(row)
    return FitResult(weights=store[row], **record)


def killed_and_continued(tmp_path, base, limit, kills, longest_s):
    assert main(command(tmp_path / "undisturbed", base, limit)) == 0
    out, dice = tmp_path / "killed", random.Random(0)
    killed = sum(kill_while_building(command(out, base, limit), dice.uniform(0, longest_s)) for _ in range(kills))
    last = start(command(out, base, limit))
    _, told = last.communicate(timeout=240)
    assert last.returncode == 0, told
    check_equal(out, tmp_path / "undisturbed")
    return killed


def test_two_kills(tiny_base, tmp_path):
    assert killed_and_continued(tmp_path, tiny_base, limit=100, kills=2, longest_s=0.2) >= 1


# Runs a command for each line it gets, in a fork of itself: what takes seconds to import is there already.
FORKING = """
import json, os, sys
from wsrl.cli.main import main

for line in sys.stdin:
    if (child := os.fork()) == 0:
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# What is written under a temporary name and renamed, by the beginning of its name; the last one stands for any of them.
WRITTEN = ("segment-", "shard-", "manifest.json", "")


class Commands:
    """Runs commands one after the other; the one that runs can be killed."""

    def __init__(self, warm_up):
        first = f"import wsrl.cli.main as command; assert command.main({warm_up!r}) == 0"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        argv = [sys.executable, "-c", f"{first}\nprint('warm', flush=True)\n{FORKING}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.server = subprocess.Popen(argv, env=environment, text=True, **pipes)
        while self.server.stdout.readline() != "warm\n":
            assert self.server.poll() is None, "the undisturbed build failed"

    def start(self, argv):
        """The process of a command."""
        print(json.dumps(argv), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def ended(self):
        """The status of the command, negative where it was killed; other lines are what it printed."""
        while not (line := self.server.stdout.readline().strip()).lstrip("-").isdigit():
            assert self.server.poll() is None
        return int(line)

    def close(self):
        self.server.communicate()


def temporary_files(out, kind=""):
    """Their names; only segments are written in folders of their own, and the look has to be quick."""
    deep = kind in ("", "segment-")
    found = (
        [name for _, _, names in os.walk(out) for name in names] if deep else os.listdir(out) if out.exists() else []
    )
    return [name for name in found if name.lstrip(".").startswith(kind) and name.endswith(".tmp")]


def wait_until_written(out, kind, times):
    """Return once so many files of a kind were seen under their temporary names, or the store is complete."""
    seen = set()
    while len(seen) < times and not (out / "README.md").exists():
        seen |= set(temporary_files(out, kind))


def thirty_kills(commands, argv, out, undisturbed):
    """Kill thirty builds; the number of kills that left a temporary file behind."""
    dice, kills, hits, number = random.Random(0), 0, 0, 0
    while kills < 30:
        store = out / str(number)
        process = commands.start(argv(store))
        if kills % 2:
            wait_until_written(store, WRITTEN[kills // 2 % 4], dice.randint(1, 5))
        else:
            time.sleep(dice.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)  # until its status is asked for it cannot be another process
        status = commands.ended()
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        hits += bool(temporary_files(store))
        if status == 0:
            check_equal(store, undisturbed)
            number += 1
    commands.start(argv(store))
    assert commands.ended() == 0
    check_equal(store, undisturbed)
    return hits


@pytest.mark.slow
def test_thirty_kills(tiny_base, tmp_path):
    """So many tiny shards that a build is most of the time writing, renaming and assembling.

    Every other kill is at a random time, the others hit a file that is being written. A build that ends before the
    thirtieth kill is compared, and the next one begins.
    """

    def argv(out):
        return [*command(out, tiny_base, 240)[:-1], "80"]

    commands = Commands(argv(tmp_path / "undisturbed"))
    try:
        hits = thirty_kills(commands, argv, tmp_path, tmp_path / "undisturbed")
    finally:
        commands.close()
    assert hits >= 3, "of 15 kills some meet a file before it is renamed"


@pytest.mark.slow
def test_two_processes_build_two_shards(tiny_base, tmp_path):
    assert main(command(tmp_path / "whole", tiny_base, 40)) == 0
    argv = command(tmp_path / "parts", tiny_base, 40)[:-2]
    running = [start([*argv, "--shard", shard]) for shard in ("0/2", "1/2")]
    told = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    check_equal(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_build_continues(tiny_base, tmp_path, number):
    argv = command(tmp_path / "store", tiny_base, 1000)
    process = start(argv)
    wait_until_building(process)
    process.send_signal(number)
    _, told = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "run the same command again to continue" in told and "Traceback" not in told
    assert main(argv) == 0 and main(["verify", str(tmp_path / "store")]) == 0


@pytest.mark.slow
def test_a_build_on_a_full_and_on_a_read_only_disk_continues(tiny_base, small_disk, capsys):
    """The command ends with a message, and goes on once there is room or the disk can be written."""
    argv = command(small_disk.path / "store", tiny_base, 300)
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert "the disk is full" in told and "run the same command again" in told and "Traceback" not in told
    small_disk.remount("size=16m,ro")
    assert main(argv) == 2
    assert "read-only" in capsys.readouterr().err
    small_disk.remount("size=16m,rw")
    assert main(argv) == 0 and main(["verify", str(small_disk.path / "store")]) == 0


def test_a_second_process_on_a_shard_is_refused(tiny_base, tmp_path, refused):
    argv = command(tmp_path / "store", tiny_base, 12)
    assert main(argv) == 0
    with ShardWriter(tmp_path / "store", 0):
        told = refused(*argv)
    assert "is being written by another process" in told
    assert main(argv) == 0


def test_a_damaged_segment_is_told_and_fitted_again(tiny_base, tmp_path, capsys):
    """One flipped bit in a segment that an unfinished build left: the end is the undisturbed store."""
    argv = command(tmp_path / "store", tiny_base, 12)
    assert main(command(tmp_path / "undisturbed", tiny_base, 12)) == 0
    assert main([*argv[:-2], "--shard", "1/2"]) == 0
    with WeightStore.open(tmp_path / "undisturbed") as store:
        first = [field_result(store, row) for row in range(3)]
    with ShardWriter(tmp_path / "store", 0) as writer:
        writer.write_segment(first)
        (segment,) = writer.segments.glob("*.h5")
    with h5py.File(segment, "r+") as file:
        name = next(iter(file["weights"]))
        file[f"weights/{name}"][1] += 1.0
    capsys.readouterr()
    assert main(argv) == 0
    assert f"damaged and fitted again: {segment.name}" in capsys.readouterr().err
    check_equal(tmp_path / "store", tmp_path / "undisturbed")
