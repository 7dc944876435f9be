"""Record finished shards in the manifest and complete a store."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from wsrl.durable import file_sha256, locked, sync, write_bytes
from wsrl.store import schema
from wsrl.store.card import data_card
from wsrl.store.reader import WeightStore
from wsrl.store.shard import ShardFile


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
    # Under the lock, so that of two processes that end at once the later one writes the card of the later state, and
    # neither looks into a folder that the other removes.
    with locked(directory / schema.LOCK):
        with WeightStore.open(directory, partial=True) as store:
            write_bytes(directory / schema.CARD, data_card(store).encode("utf-8", "backslashreplace"))
        segments = directory / schema.SEGMENTS
        if complete and segments.exists() and not any(entry.is_dir() for entry in segments.iterdir()):
            shutil.rmtree(segments, ignore_errors=True)
    sync(directory)
    return complete
