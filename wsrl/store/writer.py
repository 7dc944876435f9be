"""Build a store: make or continue its directory, fill shards segment by segment, and record finished shards.

A killed process loses at most the batch in flight: segments and shards get their names only when they are complete and
on the disk, and what is complete is never fitted again.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.store import rows, schema
from wsrl.store.assembly import assemble
from wsrl.store.card import data_card
from wsrl.store.durable import disk_errors, locked, publish, sync_directory, write_bytes
from wsrl.store.reader import WeightStore
from wsrl.store.record import FitResult
from wsrl.store.shard import ShardFile, table_bytes


def create_or_resume(
    directory: Path | str,
    *,
    layout: Layout,
    representation: dict,
    base_sha256: str | None,
    source: dict,
    fit: dict,
    num_signals: int,
    num_shards: int,
    label_names: Sequence[str],
    save_base: Callable[[Path], None] | None = None,
    command: str = "",
) -> None:
    """Make the store's directory, or check that what is there is the same build.

    Args:
        directory: The store; made with its parents where missing.
        layout: Tensors of a field.
        representation: Plain JSON from which the representation is rebuilt.
        base_sha256: Hash of the base field, None for standalone fields.
        source: Plain JSON that identifies the signals.
        fit: Configuration of the fit, plain JSON.
        num_signals: Signals of the source, bad ones included.
        num_shards: Shards that they are spread over.
        label_names: Class names in the order of their stored numbers.
        save_base: Called with the path of a new folder to write the base field to.
        command: The command that makes the store again; kept for the data card.

    Raises:
        UserError: The folder holds something else or another build, or cannot be written.
    """
    if num_shards < 1:
        raise UserError(f"num_shards is {num_shards}", allowed="1 or more", do="choose a number of shards")
    directory = Path(directory)
    asked = {
        "representation": representation,
        "layout": layout.to_json(),
        "base_sha256": base_sha256,
        "source": source,
        "fit": fit,
        "num_signals": num_signals,
        "num_shards": num_shards,
        "label_names": list(label_names),
    }
    asked = json.loads(json.dumps(asked))
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        foreign = [entry.name for entry in directory.iterdir() if not _is_ours(entry.name)]
    if not (directory / schema.MANIFEST).exists() and foreign:
        raise UserError(
            f"{directory} is an output folder that is not ours: it holds {foreign[0]!r} and no {schema.MANIFEST}",
            allowed="a new or empty folder, or a store of the same build",
            do="choose another folder",
        )
    with locked(directory / schema.LOCK):
        if (directory / schema.MANIFEST).exists():
            _check_same_build(directory, asked)
        else:
            head = {"schema": schema.SCHEMA, "version": schema.VERSION, "complete": False, "command": command}
            schema.write_manifest(directory, head | asked | {"shards": []})
        if save_base is not None:
            _save_base(directory, save_base)


def _is_ours(name: str) -> bool:
    """Whether a store without its manifest may hold such a file: what a build killed at its first instant leaves."""
    return name == schema.LOCK or (name.startswith(schema.MANIFEST) and name.endswith(".tmp"))


def _check_same_build(directory: Path, asked: dict) -> None:
    there = schema.read_manifest(directory)
    for key in schema.BUILD_KEYS:
        found = schema.first_difference(there[key], asked[key], key)
        if found:
            name, old, new = found
            short = [json.dumps(value)[:120] for value in (old, new)]
            raise UserError(
                f"{directory} holds another build: {name} is {short[0]} there, and {short[1]} is asked for",
                allowed="continuing the same build",
                do="choose another output folder, or repeat the options that the store was started with",
            )


def _save_base(directory: Path, save_base: Callable[[Path], None]) -> None:
    final = directory / schema.BASE
    if final.exists():
        return
    for left in directory.glob(f".{schema.BASE}-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = directory / f".{schema.BASE}-{os.getpid()}.tmp"
    with disk_errors(final):
        try:
            temporary.mkdir()
            save_base(temporary)
            publish(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class ShardWriter:
    """The one writer of a shard; use it as a context manager, which holds the shard's lock.

    Attributes:
        indices: Source indices that belong to the shard.
        done: Those whose outcome is safely on the disk, failures included.
        discarded: Segments found damaged and deleted, with the reason; their rows are no longer in ``done``.

    Args:
        directory: A store made by :func:`create_or_resume`.
        shard: Number of the shard, from 0.
    """

    def __init__(self, directory: Path | str, shard: int):
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
        self.done: set[int] = set()
        self.discarded: list[tuple[str, str]] = []
        self._held = ExitStack()

    @property
    def finished(self) -> bool:
        """Whether the shard itself is there."""
        return self.path.exists()

    def __enter__(self) -> "ShardWriter":
        busy = UserError(
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
                found = self._indices_of(segment)
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
        if found & self.done:
            self.discarded.append((path.name, "its rows are in another segment too"))
            path.unlink()
            return
        self.done |= found

    def _indices_of(self, file: ShardFile) -> set[int]:
        found = file.column("fields/index").tolist() + file.column("failures/index").tolist()
        if len(set(found)) != len(found) or not set(found) <= set(self.indices):
            raise file.broken("its source indices are not those of this shard")
        return set(found)

    def _temporary(self) -> Path:
        return self.path.with_name(self.path.name + ".tmp")

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
        if not self.finished:
            assert self.done == set(self.indices), f"{len(self.indices) - len(self.done)} signals are not done"
            segments = [ShardFile(path) for path in sorted(self.segments.glob("segment-*.h5"))]
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

    def _forget(self) -> None:
        """Drop the manifest's entry of a shard that was deleted and is made again."""
        with locked(self.directory / schema.LOCK):
            manifest = schema.read_manifest(self.directory)
            kept = [entry for entry in manifest["shards"] if entry["file"] != self.path.name]
            if len(kept) != len(manifest["shards"]):
                schema.write_manifest(self.directory, manifest | {"shards": kept, "complete": False})


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def record_shards(directory: Path | str, shards: Sequence[int]) -> bool:
    """Add finished shards to the manifest with their counts and hashes.

    Args:
        directory: The store.
        shards: Numbers of shards to look for; those not finished, or recorded already, are passed over.

    Returns:
        Whether the store is complete.
    """
    directory = Path(directory)
    with locked(directory / schema.LOCK):
        manifest = schema.read_manifest(directory)
        entries = {entry["file"]: entry for entry in manifest["shards"]}
        for shard in shards:
            path = directory / schema.shard_name(shard, manifest["num_shards"])
            if path.name not in entries and path.exists():
                entries[path.name] = _entry(path)
        names = [schema.shard_name(shard, manifest["num_shards"]) for shard in range(manifest["num_shards"])]
        complete = all(name in entries and (directory / name).exists() for name in names)
        new = manifest | {"shards": [entries[name] for name in sorted(entries)], "complete": complete}
        if new != manifest:
            schema.write_manifest(directory, new)
    return complete


def _entry(path: Path) -> dict:
    with ShardFile(path) as shard:
        counts = {"count": shard.count(), "failures": shard.count("failures/index")}
    return {"file": path.name, **counts, "size_bytes": path.stat().st_size, "sha256": file_sha256(path)}


def finalize(directory: Path | str) -> bool:
    """Record every finished shard; when all are there, mark the store complete and write its data card.

    Safe to call at any time, from several processes, and again.

    Returns:
        Whether the store is complete.
    """
    directory = Path(directory)
    complete = record_shards(directory, range(schema.read_manifest(directory)["num_shards"]))
    with WeightStore.open(directory, partial=True) as store:
        write_bytes(directory / schema.CARD, data_card(store).encode("utf-8", "surrogateescape"))
    segments = directory / schema.SEGMENTS
    if complete and segments.exists() and not any(entry.is_dir() for entry in segments.iterdir()):
        shutil.rmtree(segments, ignore_errors=True)
    sync_directory(directory)
    return complete
