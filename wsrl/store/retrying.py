"""Failures that are tried again: files of rows without the failures in them, and whether anything came out anew."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from wsrl.durable import write_bytes
from wsrl.fields.layout import Layout
from wsrl.store import rows
from wsrl.store.shard import ShardFile, table_bytes


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
    return _told(shard) == set().union(*map(_told, segments))


def _told(file: ShardFile) -> set[tuple]:
    table = file.failures()
    return set(zip(*(table[f"failures/{name}"].tolist() for name in ("index", "id", "reason"))))
