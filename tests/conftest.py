"""Fixtures that tests of several rooms share."""

import pytest
import torch

from wsrl.fields.layout import Layout, TensorSpec


@pytest.fixture
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


@pytest.fixture
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
