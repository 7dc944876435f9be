"""``wsrl build`` killed with SIGKILL and started again ends row for row like an undisturbed build."""

import os
import random
import signal
import subprocess
import sys

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


# What is written under a temporary name and renamed, by the beginning of its name; the last one stands for any of them.
WRITTEN = ("segment-", "shard-", "manifest.json", "")


def temporary_files(out):
    return [name for _, _, names in os.walk(out) for name in names if name.endswith(".tmp")]


def kill_while_writing(argv, out, kind, times):
    """Kill the build as soon as so many files of a kind were seen under their temporary names.

    Returns:
        Whether it was killed, and how many temporary files its death left.
    """
    process, seen = start(argv), set()
    while len(seen) < times and process.poll() is None:
        seen |= {name for name in temporary_files(out) if name.startswith(kind)}
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL, len(temporary_files(out))


@pytest.mark.slow
def test_thirty_kills(tiny_base, tmp_path):
    """So many tiny shards that a build is most of the time writing, renaming and assembling.

    Every other kill is at a random time, the others hit a file that is being written. A build that ends before the
    thirtieth kill is compared, and the next one begins.
    """

    def argv(out):
        return [*command(out, tiny_base, 240)[:-1], "80"]

    assert main(argv(tmp_path / "undisturbed")) == 0
    dice, kills, hits, number = random.Random(0), 0, 0, 0
    while kills < 30:
        out = tmp_path / f"killed{number}"
        if kills % 2:
            killed, left = kill_while_writing(argv(out), out, WRITTEN[kills // 2 % 4], dice.randint(1, 5))
            hits += left > 0
        else:
            killed = kill_while_building(argv(out), dice.uniform(0, 0.5))
        kills += killed
        if not killed:
            assert main(argv(out)) == 0
            check_equal(out, tmp_path / "undisturbed")
            number += 1
    assert main(argv(out)) == 0
    check_equal(out, tmp_path / "undisturbed")
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
