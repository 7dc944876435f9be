"""Shards as they lie in the page cache: rows of many files gathered into one batch with a single copy.

Nothing is read ahead into memory of this process: the system's page cache holds the bytes, is shared by all workers,
and is given up under pressure. Letters: ``S`` shards, ``T`` tensors of a field, ``B`` rows of a batch.
"""

import ctypes
import errno
import math
import mmap
import os
import resource
import sys
from collections.abc import Iterable
from functools import cache
from itertools import filterfalse, groupby

import numpy as np
import torch
from torch import Tensor

from wsrl.fields.layout import Layout
from wsrl.store.checksums import fingerprint_at
from wsrl.store.rows import is_failure_column
from wsrl.store.shard import ShardFile

_LOWEST = 1 << 12  # no mapping lies below; an address of zero would mean "no memory" to torch
_HIGHEST = 1 << 52  # nor above, on any processor of today
_BYTES = torch.frombuffer((ctypes.c_char * (_HIGHEST - _LOWEST)).from_address(_LOWEST), dtype=torch.uint8)

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
WILL_NEED, POPULATE = 3, 22  # for madvise; Linux knows the second since 5.14, and pages are read when touched before
KEPT_BATCHES = 3
_UNUSED = 3  # references to an array that only a list, a variable and the counting itself know


@cache
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of rows of this shape that lie one behind the other, the row's own first."""
    return tuple(math.prod(shape[axis:]) for axis in range(len(shape) + 1))


class MappedShard:
    """Read-only memory of a finished shard; keep it for as long as addresses in it are used.

    Args:
        shard: The file.
    """

    def __init__(self, shard: ShardFile):
        self.shard = shard
        size = shard.path.stat().st_size
        self._columns = {}
        for name in sorted(filterfalse(is_failure_column, shard.columns())) if shard.count() else ():
            offset, dtype, (count, *shape) = shard.location(name)
            row_bytes = dtype.itemsize * math.prod(shape)
            if offset + count * row_bytes > size:
                raise shard.broken(f"{name} reaches past the end of the file")
            self._columns[name] = offset, row_bytes, dtype, shape
        self.weights = [name for name in self._columns if name.startswith("weights/")]
        self.labelling = [name for name in self._columns if name in ("fields/label", "fields/id")]
        self.labelling += [name for name in self._columns if name.startswith("metrics/")]
        self._blocks = shard.fingerprints()[0], shard.count()  # asked for here, since HDF5 is not for several threads
        self.storage = torch.UntypedStorage.from_file(str(shard.path), False, size)  # keeps no file open
        self._memory = torch.empty(0, dtype=torch.uint8).set_(self.storage).numpy()
        # Where the first rows of all columns lie in memory, and the bytes of a row of each.
        offsets = [offset for offset, *_ in self._columns.values()]
        self._places = np.array(offsets, dtype=np.uint64) + np.uint64(self.storage.data_ptr())
        self._row_sizes = np.array([row_bytes for _, row_bytes, *_ in self._columns.values()], dtype=np.uint64)

    def address(self, name: str) -> int:
        """Where the first row of a column lies."""
        return self.storage.data_ptr() + self._columns[name][0]

    def column(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a column; the bytes are the file's, not a copy."""
        offset, row_bytes, dtype, shape = self._columns[name]
        return self._memory[offset + start * row_bytes : offset + stop * row_bytes].view(dtype).reshape(-1, *shape)

    def agrees(self, start: int, stop: int) -> bool | None:
        """Whether a block has its stored fingerprint; None where none is stored for exactly these rows."""
        if stop != min(start + self._blocks[0], self._blocks[1]):
            return None
        for name in self.weights:
            self.advise(name, start, stop, POPULATE)
        addresses = self._places + np.uint64(start) * self._row_sizes
        found = fingerprint_at(addresses, (stop - start) * self._row_sizes.astype(np.int64))
        if found is None:
            return self.shard.agrees(start, (self.column(name, start, stop) for name in self._columns))
        stored = self.shard.stored_fingerprint(start)
        return None if stored is None else found == stored

    def advise(self, name: str, start: int, stop: int, advice: int) -> None:
        """Have the system fetch rows of a column in one go where it does not hold them.

        Args:
            name: The column.
            start: First row.
            stop: Row after the last one.
            advice: ``WILL_NEED`` returns at once; ``POPULATE`` waits, and raises where touching would kill the process.

        Raises:
            UserError: The disk cannot read them.
        """
        offset, row_bytes, *_ = self._columns[name]
        first, last = offset + start * row_bytes, offset + stop * row_bytes
        first -= first % mmap.PAGESIZE
        failed = _LIBC.madvise(self.storage.data_ptr() + first, last - first, advice)
        if failed and advice == POPULATE and ctypes.get_errno() != errno.EINVAL:
            raise self.shard.broken(f"{name} cannot be read ({os.strerror(ctypes.get_errno())})", row=start)


class Gatherer:
    """Gathers weights from mapped shards.

    Args:
        layout: The tensors of a field.
        num_shards: Shards there are.
    """

    def __init__(self, layout: Layout, num_shards: int):
        self.layout = layout
        self.shards: dict[int, MappedShard] = {}
        self._starts = np.zeros((len(layout.tensors), num_shards), dtype=np.int64)  # (T, S)
        # Tensors of one size lie side by side and are gathered together: threads have to meet once for each size.
        self._specs = sorted(layout, key=lambda spec: spec.size)
        self._by_size = [(4 * size, list(same)) for size, same in groupby(self._specs, key=lambda spec: spec.size)]
        self._faults = 0
        self._held: list[np.ndarray] = []
        self._row_bytes = np.array([[4 * spec.size] for spec in self._specs], dtype=np.int64)  # (T, 1)

    def add(self, number: int, shard: MappedShard) -> None:
        """Make the rows of a shard known under its number."""
        self.shards[number] = shard
        self._starts[:, number] = [shard.address(f"weights/{spec.name}") for spec in self._specs]

    def fetch(self, blocks: Iterable[tuple[int, int, int]], *, known: bool) -> None:
        """Have the system fetch the weights of blocks that it may not hold.

        Args:
            blocks: Number of the shard, first row, and row after the last one.
            known: Whether the blocks were read before: then this is only done where pages were given up since.
        """
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        if known and faults == self._faults:
            return
        self._faults = faults
        for number, start, stop in blocks:
            for name in self.shards[number].weights:
                self.shards[number].advise(name, start, stop, WILL_NEED)

    def weights(self, shards: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
        """Tensors ``(B, *shape)`` of rows, each by the number of its shard and its row there.

        The trick: all memory of the process is one table of overlapping rows, one starting at every byte, from which
        torch selects by address: one copy, in parallel, whatever files the rows are in.
        """
        # Address of each tensor of each row, relative to the lowest: the selected rows of one table of bytes.
        addresses = np.take(self._starts, shards, axis=1) + rows * self._row_bytes  # (T, B)
        first, last = int(addresses.min()), int(addresses.max())
        offsets = torch.from_numpy((addresses - first).reshape(-1))
        memory = torch.from_numpy(self._memory(int(self._row_bytes.sum()) * len(rows)))
        floats = memory.view(torch.float32)
        tensors, used, done = dict.fromkeys(spec.name for spec in self.layout), 0, 0
        # Tensors of one size are rows of one width: one selection for all of them.
        for row_bytes, specs in self._by_size:
            count = len(specs) * len(rows)
            table = _BYTES.as_strided((last - first + 1, row_bytes), (1, 1), first - _LOWEST)
            out = memory.as_strided((count, row_bytes), (row_bytes, 1), used)
            torch.index_select(table, 0, offsets[done : done + count], out=out)
            # Of what was copied, each tensor of the batch is a view.
            for spec in specs:
                tensors[spec.name] = floats.as_strided((len(rows), *spec.shape), _strides(spec.shape), used // 4)
                used += len(rows) * row_bytes
            done += count
        return tensors

    def _memory(self, size: int) -> np.ndarray:
        """Memory for a batch: that of an earlier one of which no tensor is left, else new.

        Memory fresh from the system has to be cleared page by page, which takes as long as the copy into it.
        """
        for held in self._held:
            if len(held) == size and sys.getrefcount(held) == _UNUSED:
                return held
        self._held = [torch.empty(size, dtype=torch.uint8).numpy(), *self._held[: KEPT_BATCHES - 1]]
        return self._held[0]
