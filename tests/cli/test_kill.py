"""``wsrl build`` killed with SIGKILL and started again ends row for row like an undisturbed build."""

import os
import random
import signal
import subprocess
import sys

import pytest
import torch

from wsrl.cli.main import main
from wsrl.store import WeightStore

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


@pytest.mark.slow
def test_ten_kills_at_random_instants(tiny_base, tmp_path):
    assert killed_and_continued(tmp_path, tiny_base, limit=200, kills=10, longest_s=1.0) >= 3


@pytest.mark.slow
def test_two_processes_build_two_shards(tiny_base, tmp_path):
    assert main(command(tmp_path / "whole", tiny_base, 40)) == 0
    argv = command(tmp_path / "parts", tiny_base, 40)[:-2]
    running = [start([*argv, "--shard", shard]) for shard in ("0/2", "1/2")]
    told = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    check_equal(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
def test_a_terminated_build_continues(tiny_base, tmp_path):
    argv = command(tmp_path / "store", tiny_base, 100)
    process = start(argv)
    wait_until_building(process)
    process.terminate()
    _, told = process.communicate(timeout=240)
    assert process.returncode in (0, 130)
    assert process.returncode == 0 or "run the same command again to continue" in told
    assert "Traceback" not in told and main(argv) == 0
