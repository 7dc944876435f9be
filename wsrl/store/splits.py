"""The train, validation and test parts of a store, and the share of a part that one worker reads.

Which part a field belongs to depends on its id and split alone: not on the order, the shards or the other fields.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from wsrl.signals.split_names import split_name
from wsrl.store import rows
from wsrl.store.batches import Batch, BatchOptions, iterate
from wsrl.store.reader import WeightStore
from wsrl.store.rows import Table
from wsrl.store.shards import Block

PARTS = ("train", "val", "test")


def part_of(identifier: str, split: str, val_fraction: float, test_fraction: float) -> str:
    """The part of one field.

    A test or validation split is taken as it is; a share of a train split, chosen by a hash of the id, is held out for
    validation. A field without a split is sent to test, validation or train by the same hash.

    Args:
        identifier: Id of the field.
        split: Name of its split, empty for none.
        val_fraction: Share held out for validation.
        test_fraction: Share held out for the test where there is no split.

    Returns:
        ``train``, ``val`` or ``test``; a split of another name is a part of its own, which nothing reads.
    """
    known = split_name(split)
    if known not in ("train", ""):
        return known
    digest = hashlib.blake2b(identifier.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    position = int.from_bytes(digest, "little") / 2**64
    if known == "train":
        return "val" if position < val_fraction else "train"
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction * (1.0 - test_fraction) else "train"


def part_codes(store: WeightStore, val_fraction: float, test_fraction: float) -> np.ndarray:
    """Place in ``PARTS`` of each row, -1 for none; one byte a field, read one shard at a time."""
    codes = [np.zeros(0, dtype=np.int8)]
    for shard in store.shards:
        ids, splits = (rows.decode(shard.column(f"fields/{name}")) for name in ("id", "split"))
        parts = [part_of(name, split, val_fraction, test_fraction) for name, split in zip(ids, splits)]
        codes.append(np.array([PARTS.index(part) if part in PARTS else -1 for part in parts], dtype=np.int8))
    return np.concatenate(codes)


@dataclass(frozen=True)
class Share:
    """Which share of a part a reader takes, and in which order.

    Attributes:
        number: Number of the reader, counted over all processes.
        count: Readers there are.
        equal: Give all readers the same number of rows, leaving out up to ``count - 1``, as distributed training needs.
        seed: Seed of the order; None for the order of the store.
    """

    number: int = 0
    count: int = 1
    equal: bool = False
    seed: int | None = None

    def limits(self, total: int) -> tuple[int, int]:
        """First row of the share and the row after its last one, of ``total`` rows."""
        if self.equal:
            size = total // self.count
            return self.number * size, (self.number + 1) * size
        return self.number * total // self.count, (self.number + 1) * total // self.count


class PartReader:
    """The rows of one part that fall to one reader, block by block; a stand-in for the store in ``iterate``.

    Blocks are laid out in the order of the seed, the same for all readers, and cut into equal runs of rows: each reader
    knows the size of its share beforehand, and batches mix all of the store from epoch to epoch.

    Args:
        store: The store.
        mask: Boolean array over the rows of the store.
        share: The share to read.
    """

    def __init__(self, store: WeightStore, mask: np.ndarray, share: Share):
        self.store, self.mask, self.share = store, mask, share

    def blocks(self, split: str | None = None) -> list[Block]:
        """The blocks of the share, with the rows of the part in each."""
        assert split is None, "the part decides about the rows"
        blocks = [block._replace(kept=_rows(block)) for block in self.store.shards.blocks(self.mask)]
        if self.share.seed is not None:
            order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(self.share.seed))
            blocks = [blocks[i] for i in order.tolist()]
        return self._cut(blocks)

    def _cut(self, blocks: list[Block]) -> list[Block]:
        first, last = self.share.limits(sum(len(block.kept) for block in blocks))
        kept, position = [], 0
        for block in blocks:
            mine = block.kept[max(first - position, 0) : max(last - position, 0)]
            kept += [block._replace(kept=mine)] if len(mine) else []
            position += len(block.kept)
        return kept

    def pool(self, blocks: Sequence[Block], *, check: bool = True) -> Table:
        """What batches of some blocks are made of."""
        return self.store.pool(blocks, check=check)

    def batch(self, table: Table) -> Batch:
        """The batch of some rows of a pool."""
        return self.store.batch(table)

    def batches(self, size: int, drop_last: bool = False, metrics: Sequence[str] = ()) -> Iterator[Batch]:
        """Go through the share once, shuffled where it has a seed, with the named metrics of the fits in float32."""
        seed = self.share.seed
        generator = None if seed is None else torch.Generator().manual_seed(seed * 2 + 1 + (self.share.number << 32))
        options = BatchOptions(size=size, shuffle=seed is not None, generator=generator, drop_last=drop_last)
        for batch in iterate(self, options):
            yield replace(batch, metrics={name: _metric(batch, name) for name in metrics})


def _rows(block: Block) -> np.ndarray:
    return np.arange(block.stop - block.start) if block.kept is None else block.kept


def _metric(batch: Batch, name: str) -> torch.Tensor:
    """One metric ``(B,)``; NaN where no field of the batch has it."""
    column = batch.metrics.get(name)
    return torch.full((len(batch),), torch.nan) if column is None else column.float()
