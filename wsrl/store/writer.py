"""Build a store: make or continue its directory, fill shards segment by segment, and record finished shards.

A killed process loses at most the batch in flight: segments and shards get their names only when they are complete and
on the disk, and what is complete is never fitted again. The order of calls is :func:`create_or_resume` once, a
:class:`ShardWriter` for each shard up to ``finish``, finished ones included, and :func:`finalize` at the end.
"""

import shutil
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from wsrl.durable import disk_errors, locked, publish, write_bytes
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.store import rows, schema
from wsrl.store.assembly import WithoutFailures, assemble, drop_failures, fail_again
from wsrl.store.directory import create_or_resume, finalize, record_shards
from wsrl.store.rows import FitResult
from wsrl.store.shard import ShardFile, table_bytes

__all__ = ["ShardBusy", "ShardWriter", "create_or_resume", "finalize"]


class ShardBusy(UserError):
    """Another process holds the lock of a shard."""


class ShardWriter:
    """The one writer of a shard; use it as a context manager, which holds the shard's lock.

    Attributes:
        indices: Source indices that belong to the shard.
        done: Those whose outcome is safely on the disk, failures included.
        discarded: Segments found damaged and deleted, with the reason; their rows are no longer in ``done``.
        failed: Signals without a field that are to be tried again.

    Args:
        directory: A store made by :func:`create_or_resume`.
        shard: Number of the shard, from 0.
        retry: Try failures again: they are not in ``done``, and what comes out takes their place, also in a shard that
            was finished.
    """

    def __init__(self, directory: Path | str, shard: int, *, retry: bool = False):
        self.directory = Path(directory)
        self.manifest = schema.read_manifest(self.directory)
        num_shards = self.manifest["num_shards"]
        if not 0 <= shard < num_shards:
            raise UserError(
                f"Shard {shard} is not in {self.directory}", allowed=f"0 to {num_shards - 1}", do="choose one of these"
            )
        self.shard = shard
        self.layout = Layout.from_json(self.manifest["layout"])
        self.indices = schema.shard_range(shard, num_shards, self.manifest["num_signals"])
        self.path = self.directory / schema.shard_name(shard, num_shards)
        self.segments = self.directory / schema.SEGMENTS / f"{shard:05d}"
        self.retry = retry
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.discarded: list[tuple[str, str]] = []
        self._held = ExitStack()

    @property
    def finished(self) -> bool:
        """Whether the shard itself is there."""
        return self.path.exists()

    def __enter__(self) -> "ShardWriter":
        busy = ShardBusy(
            f"Shard {self.shard} of {self.directory} is being written by another process",
            allowed="one process per shard",
            do="wait until it ends, or work on another shard",
        )
        with disk_errors(self.segments):
            self.segments.parent.mkdir(exist_ok=True)
        self._held.enter_context(locked(self.segments.with_suffix(".lock"), busy=busy))
        try:
            self._open()
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *unused) -> None:
        self._held.close()

    def _open(self) -> None:
        """Take stock of what earlier processes left, and remove what they left half-done."""
        with disk_errors(self.segments):
            self._temporary().unlink(missing_ok=True)
            if self.finished:
                shutil.rmtree(self.segments, ignore_errors=True)
                with ShardFile(self.path) as shard:
                    self.done = self._indices_of(shard)
                    self.failed = set(shard.column("failures/index").tolist()) if self.retry else set()
                self.done -= self.failed
                if self.failed:
                    self.segments.mkdir(exist_ok=True)
                return
            self.segments.mkdir(exist_ok=True)
            for left in self.segments.glob("*.tmp"):
                left.unlink(missing_ok=True)
            for path in sorted(self.segments.glob("segment-*.h5")):
                self._take(path)

    def _take(self, path: Path) -> None:
        """Count a segment's rows as done, or delete it where it is damaged."""
        with ShardFile(path) as segment:
            try:
                indices = self._indices_of(segment)
                for start, table in segment.blocks(self.layout):
                    wrong = rows.wrong_rows(table, self.layout)
                    if len(wrong):
                        raise segment.broken("the row does not match its checksum", row=start + int(wrong[0]))
                if len(rows.wrong_failures(segment.failures())):
                    raise segment.broken("a failure does not match its checksum")
            except UserError as error:
                self.discarded.append((path.name, error.wrong))
                path.unlink()
                return
        if indices & self.done:
            self.discarded.append((path.name, "its rows are in another segment too"))
            path.unlink()
            return
        if self.retry:
            failed = drop_failures(path, schema.shard_header(self.manifest, self.shard))
            self.failed |= failed
            indices -= failed
        self.done |= indices

    def _indices_of(self, file: ShardFile) -> set[int]:
        indices = file.column("fields/index").tolist() + file.column("failures/index").tolist()
        if len(set(indices)) != len(indices) or not set(indices) <= set(self.indices):
            raise file.broken("its source indices are not those of this shard")
        return set(indices)

    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.tmp")

    def write_segment(self, results: Sequence[FitResult]) -> None:
        """Put the outcomes of one batch on the disk; when this returns they survive a kill and a power cut.

        Args:
            results: Outcomes of signals of this shard that are not done yet, in any order.

        Raises:
            UserError: The disk refuses, or a label is unknown; nothing of the batch is kept then.
        """
        if not results:
            return
        indices = {result.index for result in results}
        assert len(indices) == len(results) and not indices & self.done, "a signal was fitted twice"
        assert indices <= set(self.indices), "a signal of another shard"
        table = rows.to_table(results, self.layout, self.manifest["label_names"])
        data = table_bytes(table, schema.shard_header(self.manifest, self.shard))
        write_bytes(self.segments / f"segment-{min(indices):010d}-{uuid.uuid4().hex[:8]}.h5", data)
        self.done |= indices

    def finish(self) -> None:
        """Make the shard out of its segments, record it in the manifest, and remove the segments.

        Raises:
            UserError: The disk refuses, or a segment was damaged meanwhile.
        """
        segments = [ShardFile(path) for path in sorted(self.segments.glob("segment-*.h5"))]
        if not self.finished or self._outdated(segments):
            assert self.done == set(self.indices), f"{len(self.indices) - len(self.done)} signals are not done"
            segments += [WithoutFailures(self.path)] if self.finished else []
            temporary = self._temporary()
            try:
                assemble(temporary, segments, schema.shard_header(self.manifest, self.shard))
                self._forget()
                with disk_errors(self.path):
                    publish(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)
        record_shards(self.directory, [self.shard])
        shutil.rmtree(self.segments, ignore_errors=True)

    def _outdated(self, segments: Sequence[ShardFile]) -> bool:
        """Whether a finished shard is to be made anew: a failure came out otherwise, or the source is another one."""
        if not self.retry:
            return False
        with ShardFile(self.path) as shard:
            header = schema.shard_header(self.manifest, self.shard)
            current = all(shard.header().get(key) == header[key] for key in schema.BUILD_KEYS)
            return not current or bool(self.failed and not fail_again(shard, segments))

    def _forget(self) -> None:
        """Drop the manifest's entry of a shard that was deleted and is made again."""
        with locked(self.directory / schema.LOCK):
            manifest = schema.read_manifest(self.directory)
            kept = [entry for entry in manifest["shards"] if entry["file"] != self.path.name]
            if len(kept) != len(manifest["shards"]):
                schema.write_manifest(self.directory, manifest | {"shards": kept, "complete": False})
