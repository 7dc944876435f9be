"""A build by several processes that is interrupted or killed leaves no process behind and can be continued."""

import os
import signal
import subprocess
import sys
import time

import pytest
from killer import processes, shard_bytes

pytestmark = pytest.mark.slow
SIGNALS = ("--source", "{limit: 100}", "--shards", "2", "--threads", "1", "--fit.steps", "150")


def started(out, base, *more):
    """A build in a process of its own, once rows are on the disk."""
    argv = ["build", "digits", "--base", str(base), "--out", str(out), "--fit.batch_size", "4", *SIGNALS, *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "wsrl.cli.main", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches the whole group
    )
    while process.poll() is None and not any(out.glob("segments/*/segment-*.h5")):
        time.sleep(0.01)
    return process


def ended(workers):
    """Whether all these processes are gone, within some seconds."""
    for _ in range(500):
        if not any(os.path.exists(f"/proc/{worker}") for worker in workers):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_build(build, tiny_base, tmp_path, number):
    process = started(tmp_path / "store", tiny_base, "--workers", "2")
    workers = processes([process.pid], "spawn_main")
    assert len(workers) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    assert "Traceback" not in told and ended(workers)
    assert build(tmp_path / "store", *SIGNALS, "--workers", "2") == 0
    assert build(tmp_path / "one", *SIGNALS) == 0
    assert shard_bytes(tmp_path / "store") == shard_bytes(tmp_path / "one")


def test_an_interrupted_ray_build_continues(build, tiny_base, tmp_path):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    process = started(tmp_path / "store", tiny_base, "--engine", "ray", "--ray-address", "local")
    os.kill(process.pid, signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "run the same command again" in told and "Traceback" not in told
    assert build(tmp_path / "store", *SIGNALS) == 0 and build(tmp_path / "one", *SIGNALS) == 0
    assert shard_bytes(tmp_path / "store") == shard_bytes(tmp_path / "one")
