"""Fixtures that tests of several rooms share."""

import os
import subprocess
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: processes with two threads each on two cores crawl

import pytest
import torch

from wsrl.fields.layout import Layout, TensorSpec


class SmallDisk:
    """A file system in memory that is full after 300 kB, until it is remounted with other options."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=300k", "tmpfs")

    def remount(self, options: str) -> None:
        self._mount("-o", f"remount,{options}")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def _mount(self, *argv: str) -> None:
        subprocess.run(["mount", *argv, str(self.path)], capture_output=True, check=True, text=True)


@pytest.fixture
def small_disk(tmp_path):
    """A small disk; skips the test where this user or container may not mount one."""
    try:
        disk = SmallDisk(tmp_path / "disk")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"cannot mount a small disk: {getattr(error, 'stderr', None) or error}")
    yield disk
    disk.unmount()


@pytest.fixture(scope="session")
def adapter_layout():
    """Layout of one small adapted layer with two frozen entries: 12 weights, 10 of them trainable."""
    mask = torch.ones(2, 3, dtype=torch.bool)
    mask[0, 1] = mask[1, 2] = False
    return Layout(
        (
            TensorSpec(
                name="layers.0.down",
                shape=(2, 3),
                axes=("rank", None),
                group="layers.0",
                token_axis=0,
                frozen=TensorSpec.pack_frozen(mask),
            ),
            TensorSpec(name="layers.0.up", shape=(3, 2), axes=(None, "rank"), group="layers.0", token_axis=1),
        )
    )


@pytest.fixture(scope="session")
def make_store(adapter_layout):
    """A function that writes a store of random weights whose two classes differ in one direction.

    Called as ``make_store(directory, num=60, shards=2, splits=..., seed=0)``; rows alternate between the classes.
    """
    from wsrl.store import FitResult
    from wsrl.store.writer import ShardWriter, create_or_resume, finalize

    def write(directory, num=60, shards=2, split=lambda index: "test" if index % 5 == 0 else "train", seed=0):
        generator = torch.Generator().manual_seed(seed)
        create_or_resume(
            directory,
            layout=adapter_layout,
            representation={},
            base_sha256=None,
            source={"name": "synthetic"},
            fit={},
            num_signals=num,
            num_shards=shards,
            label_names=("even", "odd"),
        )
        for shard in range(shards):
            with ShardWriter(directory, shard) as writer:
                rows = []
                for index in writer.indices:
                    vector = torch.randn(adapter_layout.num_weights, generator=generator)
                    vector[0] += 4.0 * (index % 2)
                    vector[~adapter_layout.trainable()] = 0.0
                    rows.append(
                        FitResult(
                            index=index,
                            id=f"synthetic/{index:05d}",
                            weights=adapter_layout.unflatten(vector),
                            metrics={"psnr": 30.0 + index % 7, "ssim": 0.9},
                            label=("even", "odd")[index % 2],
                            split=split(index),
                        )
                    )
                writer.write_segment(rows)
                writer.finish()
        finalize(directory)
        return directory

    return write


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory):
    """A store of 100 digits fitted for a few steps by a small standalone network; read it, do not write to it."""
    from wsrl.fields.network import FieldConfig
    from wsrl.fields.representation import Representation, RepresentationConfig
    from wsrl.fitting.engine import FitConfig, fit, read_signals
    from wsrl.signals import open_source
    from wsrl.store.writer import ShardWriter, create_or_resume, finalize

    directory = tmp_path_factory.mktemp("digits") / "store"
    source = open_source("digits", limit={"train": 80, "test": 20})
    config = RepresentationConfig(
        kind="mlp", field=FieldConfig(width=8, depth=1, encoding="identity", activation="sine", omega=5.0)
    )
    representation = Representation.build(config, in_features=2, out_features=1)
    create_or_resume(
        directory,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=None,
        source=source.description,
        fit={},
        num_signals=len(source),
        num_shards=1,
        label_names=source.label_names,
    )
    with ShardWriter(directory, 0) as writer:
        signals = read_signals(source, writer.indices)
        writer.write_segment(list(fit(representation, signals, FitConfig(steps=40, batch_size=50))))
        writer.finish()
    finalize(directory)
    return directory
