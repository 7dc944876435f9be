"""All shards of a store as one run of rows: opened when needed, a few at a time, each checked to belong here."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from wsrl.fields.layout import Layout
from wsrl.store import rows, schema
from wsrl.store.batches import Batch, join
from wsrl.store.mapped import Gatherer, MappedShard
from wsrl.store.rows import Table
from wsrl.store.shard import ShardFile, block_rows

MAX_OPEN = 32


class Block(NamedTuple):
    """A run of rows of one shard that is read at once.

    Attributes:
        shard: Index of the shard in the manifest.
        start: First row in the shard.
        stop: Row after the last one.
        kept: Rows to keep, counted from ``start``; None keeps all.
    """

    shard: int
    start: int
    stop: int
    kept: np.ndarray | None = None


class ShardSet:
    """Rows of all shards, numbered through in the manifest's order.

    Args:
        directory: The store.
        manifest: Its manifest.
    """

    def __init__(self, directory: Path, manifest: dict):
        self.manifest = manifest
        self.layout = Layout.from_json(manifest["layout"])
        self.files = [ShardFile(directory / entry["file"]) for entry in manifest["shards"]]
        self._ends = np.cumsum([0] + [entry["count"] for entry in manifest["shards"]])
        self._open: OrderedDict[int, None] = OrderedDict()
        self._trusted: set[int] = set()
        self._gatherer = Gatherer(self.layout, len(self.files))
        self._checked: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[ShardFile]:
        return (self[number] for number in range(len(self.files)))

    def __getitem__(self, number: int) -> ShardFile:
        """A shard; the most recently used ones stay open."""
        self._open[number] = None
        self._open.move_to_end(number)
        if len(self._open) > MAX_OPEN:
            oldest, _ = self._open.popitem(last=False)
            self.files[oldest].close()
        if number not in self._trusted:
            self._check_belongs(self.files[number], self.manifest["shards"][number])
            self._trusted.add(number)
        return self.files[number]

    def _check_belongs(self, shard: ShardFile, entry: dict) -> None:
        """Refuse a shard of another build or with another number of rows than the manifest says."""
        if shard.count() != entry["count"]:
            raise shard.broken(f"it has {shard.count()} rows, the manifest says {entry['count']}")
        header = shard.header()
        for key in schema.BUILD_KEYS:
            if header.get(key) != self.manifest[key]:
                raise shard.broken(f"it belongs to another build: its {key} is not the manifest's")

    def check_sizes(self) -> None:
        """Tell missing and truncated shards without opening them.

        Raises:
            UserError: A file is missing or has another size than the manifest says.
        """
        for shard, entry in zip(self.files, self.manifest["shards"]):
            if not shard.path.exists():
                raise shard.broken("the file is missing")
            size = shard.path.stat().st_size
            if size != entry["size_bytes"]:
                raise shard.broken(f"the file is truncated or damaged: {size} bytes instead of {entry['size_bytes']}")

    def close(self) -> None:
        """Close all files; the next access opens them again."""
        for shard in self.files:
            shard.close()
        self._open.clear()

    def locate(self, row: int) -> Block:
        """The block of a single row."""
        number = int(np.searchsorted(self._ends, row, side="right")) - 1
        local = row - int(self._ends[number])
        return Block(number, local, local + 1)

    def column(self, name: str) -> np.ndarray:
        """A column of all shards; a metric that a shard lacks is NaN there."""
        parts = []
        for shard in self:
            missing = name.startswith("metrics/") and name not in shard.columns()
            parts.append(np.full(shard.count(), np.nan) if missing else shard.column(name))
        return np.concatenate(parts) if parts else np.zeros(0)

    def texts(self, name: str) -> list[str]:
        """A text column of all shards."""
        return [text for shard in self for text in rows.decode(shard.column(name))]

    @cached_property
    def _id_hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted 64-bit hashes of all ids, and the row of each: 16 bytes per field instead of a dictionary."""
        parts = [id_hashes(shard.column("fields/id")) for shard in self]
        hashes = np.concatenate([np.zeros(0, dtype="<u8"), *parts])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def find(self, name: str) -> int | None:
        """The row of an id, None where there is none."""
        hashes, order = self._id_hashes
        wanted = rows.encode([name])
        value = id_hashes(wanted)[0]
        for row in order[np.searchsorted(hashes, value) : np.searchsorted(hashes, value, side="right")].tolist():
            block = self.locate(row)
            if self[block.shard].column("fields/id", slice(block.start, block.stop))[0] == wanted[0]:
                return row
        return None

    def blocks(self, kept: np.ndarray | None = None) -> list[Block]:
        """All rows in runs that are read at once.

        Args:
            kept: For each row whether it is wanted; None for all. Blocks without a wanted row are left out.
        """
        size, blocks = block_rows(self.layout), []
        for number, entry in enumerate(self.manifest["shards"]):
            first = int(self._ends[number])
            for start in range(0, entry["count"], size):
                stop = min(start + size, entry["count"])
                mask = None if kept is None else kept[first + start : first + stop]
                if mask is None or mask.all():
                    blocks.append(Block(number, start, stop))
                elif mask.any():
                    blocks.append(Block(number, start, stop, np.flatnonzero(mask)))
        return blocks

    def read(self, block: Block, *, check: bool = True) -> Table:
        """All columns of a block.

        Args:
            block: The rows.
            check: Compare each kept row with its checksum.

        Raises:
            UserError: A row is damaged; the message names file and row.
        """
        shard, kept = self[block.shard], block.kept
        table = shard.read(slice(block.start, block.stop))
        if kept is not None:
            table = {name: column[kept] for name, column in table.items()}
        if check:
            wrong = rows.wrong_rows(table, self.layout)
            if len(wrong):
                local = int(wrong[0]) if kept is None else int(kept[wrong[0]])
                raise shard.broken("the row does not match its checksum", row=block.start + local)
        return table

    def pool(self, blocks: Sequence[Block], *, check: bool = True) -> Table:
        """Labels, ids and metrics of the rows of some blocks, and where their weights lie: ``shard`` and ``row``.

        Args:
            blocks: The rows.
            check: Compare blocks with their fingerprints, or rows with their checksums, unless this was done before.

        Raises:
            UserError: A row is damaged; the message names file and row.
        """
        # Shards are mapped when they are first asked for.
        for number in dict.fromkeys(block.shard for block in blocks):
            if number not in self._gatherer.shards:
                self._gatherer.add(number, MappedShard(self[number]))
        # Blocks that were not read before are fetched and checked, others are only fetched where pages were given up.
        fresh = [block for block in blocks if (block.shard, block.start) not in self._checked]
        self._gatherer.fetch((block[:3] for block in blocks), known=not fresh)
        if check and fresh:
            self._check(fresh)
        return join([self._locations(block) for block in blocks])

    def batch(self, table: Table) -> Batch:
        """The batch of some rows of a pool."""
        weights = self._gatherer.weights(table["shard"], table["row"])
        metrics = {name: torch.from_numpy(table[name]) for name in table if name.startswith("metrics/")}
        return Batch(
            weights=weights,
            labels=torch.from_numpy(table["fields/label"].astype(np.int64)),
            encoded_ids=table["fields/id"],
            metrics={name.removeprefix("metrics/"): column for name, column in metrics.items()},
        )

    def _locations(self, block: Block) -> Table:
        shard, start, stop, kept = block
        mapped = self._gatherer.shards[shard]
        table = {name: mapped.column(name, start, stop) for name in mapped.labelling}
        table |= {"row": np.arange(start, stop), "shard": np.full(stop - start, shard)}
        return table if kept is None else {name: column[kept] for name, column in table.items()}

    def _check(self, blocks: list[Block]) -> None:
        """Check blocks by their fingerprints, several at once; where that is not possible or fails, row by row."""

        def agrees(block: Block) -> bool | None:
            return self._gatherer.shards[block.shard].agrees(block.start, block.stop)

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for block, good in zip(blocks, threads.map(agrees, blocks)):
                if good or self._rows_agree(block, fingerprint_differs=good is False):
                    self._checked.add((block.shard, block.start))

    def _rows_agree(self, block: Block, *, fingerprint_differs: bool) -> bool:
        """Whether every row of a block agrees with its checksum; wrong rows that are not kept do no harm."""
        shard = self[block.shard]
        wrong = rows.wrong_rows(shard.read(slice(block.start, block.stop)), self.layout)
        harmful = wrong if block.kept is None else np.intersect1d(wrong, block.kept)
        if len(harmful):
            raise shard.broken("the row does not match its checksum", row=block.start + int(harmful[0]))
        if fingerprint_differs and not len(wrong):
            raise shard.broken("the block that begins here does not match its fingerprint", row=block.start)
        return not len(wrong)


def id_hashes(ids: np.ndarray) -> np.ndarray:
    """64-bit hashes of encoded ids."""
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in ids.tolist())
    return np.frombuffer(digests, dtype="<u8")
