"""Merge the segments of a shard into one file sorted by source index, one segment in memory at a time.

Where failures are tried again, a finished shard and its segments are taken without them.
"""

import io
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from wsrl.durable import disk_errors, sync, write_bytes
from wsrl.fields.layout import Layout
from wsrl.store import rows
from wsrl.store.checksums import CHECKSUM_BYTES, fingerprint
from wsrl.store.rows import Table
from wsrl.store.shard import FINGERPRINTS, ShardFile, block_rows, table_bytes, write_header

Columns = dict[str, h5py.Dataset]

_METADATA_BYTES = 1 << 16
_METADATA_BYTES_PER_COLUMN = 1 << 11
# Columns of at least so many bytes begin at whole cache lines, which makes their words fast to read where they lie.
_ALIGNED_FROM, _ALIGNMENT = 512, 64


class _ReservedFile:
    """A file that looks empty to HDF5 at first although its space is reserved already.

    HDF5 crashes the process when a disk fills up under it; after the reservation no write can fail for lack of space.
    """

    def __init__(self, raw: io.BufferedRandom, size: int):
        os.posix_fallocate(raw.fileno(), 0, size)
        self._raw, self._end = raw, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(self._end if whence == os.SEEK_END else offset)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def readinto(self, buffer) -> int:
        return self._raw.readinto(buffer)

    def write(self, data) -> int:
        written = self._raw.write(data)
        self._end = max(self._end, self._raw.tell())
        return written

    def truncate(self, size: int) -> int:
        self._end = size
        return self._raw.truncate(size)

    def flush(self) -> None:
        self._raw.flush()


def assemble(path: Path, segments: Sequence[ShardFile], header: dict) -> None:
    """Write all rows of ``segments`` to ``path`` in the order of their source index, and sync it.

    Args:
        path: A temporary name; an existing file is replaced.
        segments: Files without a common source index; every row is checked while it is copied.
        header: The attributes of the new file.

    Raises:
        UserError: The disk is full or read-only, or a segment is damaged.
    """
    # Where each row of each segment goes: rows are sorted by their source index.
    layout = Layout.from_json(header["layout"])
    targets, failure_targets = _destinations(segments, "fields/index"), _destinations(segments, "failures/index")
    counts = {False: sum(map(len, targets)), True: sum(map(len, failure_targets))}
    # Type and shape of every column, and the bytes that the whole file will take.
    dtypes = _dtypes(segments, layout)
    shapes = {f"weights/{spec.name}": spec.shape for spec in layout}
    shapes |= {name: (CHECKSUM_BYTES,) for name in dtypes if name.endswith("checksum")}
    shapes = {name: (counts[rows.is_failure_column(name)], *shapes.get(name, ())) for name in dtypes}
    num_blocks = -(-counts[False] // block_rows(layout))
    size = 8 * num_blocks + sum(dtypes[name].itemsize * int(np.prod(shapes[name])) for name in dtypes)
    # The space is reserved first: a disk that is full is found out here. Then one segment after another is copied.
    with disk_errors(path), open(path, "w+b") as raw:
        metadata = _METADATA_BYTES + _METADATA_BYTES_PER_COLUMN * len(dtypes) + 4 * len(str(header))
        reserved = _ReservedFile(raw, size + metadata)
        with h5py.File(reserved, "w", alignment_threshold=_ALIGNED_FROM, alignment_interval=_ALIGNMENT) as file:
            write_header(file, header)
            columns = {
                name: file.create_dataset(name, shape=shapes[name], dtype=rows.file_dtype(dtype))
                for name, dtype in dtypes.items()
            }
            metrics = [name for name in dtypes if name.startswith("metrics/")]
            for segment, target, failure_target in zip(segments, targets, failure_targets):
                _copy_rows(columns, segment, target, layout, metrics)
                _scatter(columns, segment.failures(), failure_target)
                segment.close()
            _add_fingerprints(file, columns, block_rows(layout))
    sync(path)


def _add_fingerprints(file: h5py.File, columns: Columns, size: int) -> None:
    """Store the fingerprint of each block of the rows just written."""
    kept = [columns[name] for name in sorted(columns) if not rows.is_failure_column(name)]
    starts = range(0, len(columns["fields/index"]), size)
    values = [fingerprint(column[start : start + size] for column in kept) for start in starts]
    file.create_dataset(FINGERPRINTS, data=np.array(values, dtype="<u8")).attrs["rows"] = size


def _destinations(segments: Sequence[ShardFile], name: str) -> list[np.ndarray]:
    """For each segment the rows of the merged file that its rows go to."""
    indices = [segment.column(name) for segment in segments]
    order = np.sort(np.concatenate([np.zeros(0, dtype="<i8"), *indices]))
    assert (np.diff(order) > 0).all(), "a source index is in two segments"
    return [np.searchsorted(order, index) for index in indices]


def _dtypes(segments: Sequence[ShardFile], layout: Layout) -> dict[str, np.dtype]:
    """Type of every column that occurs in any segment, wide enough for the longest text."""
    empty = rows.to_table([], layout, ())
    dtypes = {name: column.dtype for name, column in empty.items()}
    for segment in segments:
        for name in segment.columns():
            dtype = segment.dataset(name).dtype
            there = dtypes.get(name, dtype)
            dtypes[name] = max(dtype, there, key=lambda candidate: candidate.itemsize)
    return dtypes


def _copy_rows(columns: Columns, segment: ShardFile, target: np.ndarray, layout: Layout, metrics: list[str]) -> None:
    """Copy the fitted rows; metrics that only other segments have become NaN, so checksums are made anew."""
    start = 0
    while start < len(target):
        table = segment.read(slice(start, start + block_rows(layout)))
        wrong = rows.wrong_rows(table, layout)
        if len(wrong):
            raise segment.broken("the row does not match its checksum", row=start + int(wrong[0]))
        count = len(table["fields/index"])
        missing = {name: np.full(count, np.nan, dtype="<f8") for name in metrics if name not in table}
        if missing:
            table |= missing
            table["checksum"] = rows.checksums(table, layout)
        _scatter(columns, table, target[start : start + count])
        start += count


def _scatter(columns: Columns, table: Table, target: np.ndarray) -> None:
    """Write a table to the rows ``target`` of a file's columns, in runs of neighbours."""
    if len(target) == 0:
        return
    order = np.argsort(target)
    target = target[order]
    # Runs of neighbouring rows are written at once.
    cuts = [0, *(np.flatnonzero(np.diff(target) != 1) + 1).tolist(), len(target)]
    for name, column in table.items():
        to, column = columns[name], column[order]
        column = column.astype(to.dtype)
        for start, stop in pairwise(cuts):
            to[target[start] : target[start] + stop - start] = column[start:stop]


class WithoutFailures(ShardFile):
    """A finished shard or a segment as if every signal in it had a field or none had been tried."""

    def dataset(self, name: str) -> h5py.Dataset | np.ndarray:
        """One column; those of the failures are empty."""
        return _no_failures(self)[name] if rows.is_failure_column(name) else super().dataset(name)


def _no_failures(file: ShardFile) -> rows.Table:
    empty = rows.to_table([], Layout.from_json(file.header()["layout"]), ())
    return {name: column for name, column in empty.items() if rows.is_failure_column(name)}


def drop_failures(path: Path, header: dict) -> set[int]:
    """Take the failures out of a segment, which is removed where it holds nothing else.

    Args:
        path: The segment.
        header: The attributes of its shard.

    Returns:
        Source indices of the signals that failed.
    """
    with WithoutFailures(path) as segment:
        failed = set(ShardFile.dataset(segment, "failures/index")[:].tolist())
        kept = segment.read() | _no_failures(segment) if failed and segment.count() else None
    if kept is not None:
        write_bytes(path, table_bytes(kept, header))
    elif failed:
        path.unlink()
    return failed


def fail_again(shard: ShardFile, segments: Sequence[ShardFile]) -> bool:
    """Whether all failures of a finished shard failed once more, for the same reasons.

    Args:
        shard: The shard.
        segments: What came out when they were tried again.
    """
    if any(segment.count() for segment in segments):
        return False
    return _failures_of(shard) == set().union(*map(_failures_of, segments))


def _failures_of(file: ShardFile) -> set[tuple]:
    table = file.failures()
    return set(zip(*(table[f"failures/{name}"].tolist() for name in ("index", "id", "reason"))))
