"""Batches of fields in a shuffled order that needs only a few blocks of rows in memory.

Blocks (up to 256 neighbouring rows of one shard) are visited in a random order; the rows of a number of blocks are
pooled and mixed; batches are cut from the pool and what remains goes into the next one. Every row comes exactly once.
A pool holds labels, ids, metrics and where the weights lie, which are copied when their batch is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.options import at_least, check_values
from wsrl.store import rows
from wsrl.store.rows import Table

POOL_BLOCKS = 16


@dataclass(frozen=True)
class Batch:
    """Fields of one batch.

    Attributes:
        weights: Tensors ``(B, *shape)`` by name.
        labels: Class numbers ``(B,)``, -1 for none.
        encoded_ids: Names of the signals as they are stored.
        metrics: Tensors ``(B,)`` in float64 by name; NaN where a field has no such metric.
    """

    weights: dict[str, Tensor]
    labels: Tensor
    encoded_ids: np.ndarray
    metrics: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def ids(self) -> list[str]:
        """Names of the signals, decoded when they are first asked for."""
        return rows.decode(self.encoded_ids)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch with all tensors on ``device``."""
        return Batch(
            {name: tensor.to(device) for name, tensor in self.weights.items()},
            self.labels.to(device),
            self.encoded_ids,
            {name: tensor.to(device) for name, tensor in self.metrics.items()},
        )


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How to go through a store once.

    Attributes:
        size: Fields in a batch.
        shuffle: Mix the rows; otherwise they come in the store's order.
        generator: Source of the order; the same state gives the same order.
        split: Only fields of this split.
        drop_last: Leave out a last batch that is smaller than ``size``.
        worker: This worker's number and the number of workers; each gets other blocks.
        check: Compare every block with its fingerprint, or its rows with their checksums, when it is first read.
    """

    size: int
    shuffle: bool = False
    generator: torch.Generator | None = None
    split: str | None = None
    drop_last: bool = False
    worker: tuple[int, int] = (0, 1)
    check: bool = True

    def __post_init__(self):
        check_values({"size": self.size}, "batch ", size=at_least(1))
        number, count = self.worker
        if not 0 <= number < count:
            raise UserError(f"worker is {self.worker}", allowed="(i, n) with 0 <= i < n", do="pass the worker's number")
        if self.shuffle and count > 1 and self.generator is None:
            raise UserError(
                "Shuffled batches for several workers need a generator",
                allowed="a torch.Generator with the same state in all workers",
                do="pass generator=torch.Generator().manual_seed(seed)",
            )


def _order(count: int, options: BatchOptions) -> Tensor:
    return torch.randperm(count, generator=options.generator) if options.shuffle else torch.arange(count)


def join(tables: list[Table]) -> Table:
    """Concatenate tables; a metric that some shards lack is NaN there."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: np.concatenate([_column(table, name) for table in tables]) for name in names}


def _column(table: Table, name: str) -> np.ndarray:
    return table[name] if name in table else np.full(len(table["fields/label"]), np.nan)


def iterate(store, options: BatchOptions) -> Iterator[Batch]:
    """Go through ``store`` once.

    Args:
        store: A :class:`~wsrl.store.reader.WeightStore`, or whatever has its ``blocks``, ``pool`` and ``batch``.
        options: Order, size and selection.

    Yields:
        Batches; fewer rows than ``size`` only in the last one.
    """
    # Blocks in a random order; each worker takes every count-th.
    blocks = store.blocks(options.split)
    number, count = options.worker
    mine = [blocks[i] for i in _order(len(blocks), options).tolist()[number::count]]
    step = POOL_BLOCKS if options.shuffle else 1
    rest: list[Table] = []
    for start in range(0, len(mine), step):
        # Some blocks, with what the last pool left over, are mixed.
        pool = join([*rest, store.pool(mine[start : start + step], check=options.check)])
        total = len(pool["fields/label"])
        order = _order(total, options).numpy()
        pool = {name: column[order] for name, column in pool.items()}
        # Whole batches are cut from the pool.
        whole = total - total % options.size
        for first in range(0, whole, options.size):
            yield store.batch({name: column[first : first + options.size] for name, column in pool.items()})
        rest = [{name: column[whole:] for name, column in pool.items()}] if whole < total else []
    if rest and not options.drop_last:
        yield store.batch(rest[0])
