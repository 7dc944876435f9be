"""Small synthetic builds for the tests of the store."""

import contextlib
import os
import signal
from pathlib import Path

import torch

from wsrl.fields.layout import Layout, TensorSpec
from wsrl.store.rows import FitResult
from wsrl.store.writer import ShardWriter, create_or_resume, finalize

LABELS = ("left", "right", "ünten")


def small_layout(width: int = 5) -> Layout:
    down = TensorSpec(name="layers.0.down", shape=(2, width), axes=("r", None), group="layers.0", token_axis=0)
    up = TensorSpec(name="layers.0.up", shape=(3, 2), axes=(None, "r"), group="layers.0", token_axis=1)
    return Layout((down, up))


def result(index: int, width: int = 5, failing: int = 11) -> FitResult:
    """The outcome for a signal, a pure function of its index; every eleventh fails."""
    name = f"toy/é/{index:05d}"
    if index % failing == 3:
        return FitResult(index=index, id=name, status="failed", reason=f"bad\nsignal {index}")
    generator = torch.Generator().manual_seed(index)
    weights = {s.name: torch.randn(s.shape, generator=generator) for s in small_layout(width)}
    return FitResult(
        index=index,
        id=name,
        weights=weights,
        metrics={"psnr": 30 + index / 7, "steps": 5.0} | ({"odd": 1.0} if index % 2 else {}),
        seed=2**62 + index,
        signal_sha256=f"{index:064x}",
        label=None if index % 10 == 9 else LABELS[index % 3],
        split="test" if index % 4 == 0 else "train",
    )


def start(directory: Path, num: int = 40, shards: int = 3, width: int = 5, **changes) -> None:
    options = {
        "layout": small_layout(width),
        "representation": {"kind": "lora", "rank": 2},
        "base_sha256": None,
        "source": {"name": "toy", "grid": (8, 8)},
        "fit": {"steps": 5, "lr": 0.01},
        "num_signals": num,
        "num_shards": shards,
        "label_names": LABELS,
        "command": "wsrl build toy --out toy",
    }
    create_or_resume(directory, **options | changes)


def fit_shard(directory: Path, shard: int, batch: int = 5, width: int = 5) -> None:
    """What an engine does: fit what is not done, in batches whose results arrive in any order."""
    with ShardWriter(directory, shard) as writer:
        todo = [index for index in writer.indices if index not in writer.done]
        for first in range(0, len(todo), batch):
            writer.write_segment([result(index, width) for index in reversed(todo[first : first + batch])])
        writer.finish()


def build(directory: Path, num: int = 40, shards: int = 3, batch: int = 5, width: int = 5, **changes) -> Path:
    start(directory, num, shards, width, **changes)
    for shard in range(shards):
        fit_shard(directory, shard, batch, width)
    assert finalize(directory)
    return directory


def run_and_die(action, prepare=None) -> int:
    """Run ``action`` in a forked process; the exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            if prepare:
                prepare()
            action()
            status = 0
        os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
