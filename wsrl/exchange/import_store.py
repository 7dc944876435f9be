"""Make a weight store out of what an import plans to read; continues what is there."""

from pathlib import Path

from wsrl.durable import locked
from wsrl.exchange.importing import ImportPlan
from wsrl.fitting.shard_builder import segments
from wsrl.progress import ShowProgress, silent
from wsrl.store import rows, schema
from wsrl.store.directory import create_or_resume, finalize
from wsrl.store.reader import WeightStore
from wsrl.store.shard import ShardFile
from wsrl.store.writer import ShardWriter

# Fields of a segment, and their bytes: what a killed import loses, and what is in memory at once.
SEGMENT = 1024
SEGMENT_BYTES = 32 << 20


def import_store(
    plan: ImportPlan,
    out: Path | str,
    *,
    num_shards: int | None = None,
    command: str = "",
    progress: ShowProgress = silent,
) -> WeightStore:
    """Write every field of a plan that has no row yet; what failed before is tried again.

    Args:
        plan: From :func:`~wsrl.exchange.importing.plan_import`.
        out: Folder of the store, new or of the same import.
        num_shards: Number of shards; None is one per 8,192 fields.
        command: The command that makes the store again; kept for its data card.
        progress: Shows the files that are hashed, and the fields that are read.

    Returns:
        The store; its ``failures`` are the files that hold no field.

    Raises:
        UserError: The folder holds something else or another import, or the disk refuses.
    """
    out = Path(out)
    _create(plan, out, num_shards, command, progress)
    _fill(plan, out, command, progress)
    finalize(out)
    return WeightStore.open(out, partial=True)


def _create(plan: ImportPlan, out: Path, num_shards: int | None, command: str, progress: ShowProgress) -> None:
    """Make the store, or check that the one there is of the same import."""
    folder, network, representation = plan.folder, plan.network, plan.network.representation
    with progress("hash", len(folder.files)) as shown:
        sha256 = folder.sha256(shown.advance)
    # what the store keeps of where it is from
    source = {
        "name": f"imported/{folder.directory.resolve().name}",
        "imported": plan.kind,
        "num_signals": len(folder.files),
        "channels": representation.out_features,
        "files_sha256": sha256,
        "labels_sha256": folder.labels_sha256(),
        "names": plan.names,
    }
    # new, or continued with the same plan; changed files are taken only where they were failures
    base = representation.base
    create_or_resume(
        out,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256() if base else None,
        source=source | ({"grid": list(network.grid)} if network.grid else {}),
        fit={},
        num_signals=len(folder.files),
        num_shards=-(-len(folder.files) // schema.FIELDS_PER_SHARD) if num_shards is None else num_shards,
        label_names=folder.label_names,
        save_base=base.save_pretrained if base else None,
        command=command,
        passed_over=folder.passed_over,
        mended="files_sha256" if _only_failures_changed(plan, out, sha256) else None,
    )


def _only_failures_changed(plan: ImportPlan, out: Path, sha256: str) -> bool:
    """Whether a store's import is of other files now, but every field in it is still what its file holds.

    Args:
        plan: The import.
        out: Folder of the store, new or not.
        sha256: Hash of all files.
    """
    folder = plan.folder
    if not (out / schema.MANIFEST).is_file() or schema.read_manifest(out)["source"].get("files_sha256") == sha256:
        return False
    for path in [*out.glob("shard-*.h5"), *out.glob(f"{schema.SEGMENTS}/*/segment-*.h5")]:
        with ShardFile(path) as shard:
            ids, hashes = (rows.decode(shard.column(f"fields/{name}")) for name in ("id", "signal_sha256"))
            indices = shard.column("fields/index").tolist()
        for index, name, stored in zip(indices, ids, hashes):
            if index >= len(folder.ids) or folder.ids[index] != name or folder.hash_or_reason(index) != stored:
                return False
    return True


def _fill(plan: ImportPlan, out: Path, command: str, progress: ShowProgress) -> None:
    """Read what has no row yet, shard by shard.

    The command that made a field of what failed before is the one that makes the store again.
    """
    mended = False
    size = max(1, min(SEGMENT, SEGMENT_BYTES // (4 * plan.network.representation.layout.num_weights)))
    with progress("import", len(plan.folder.files)) as shown:
        for shard in range(schema.read_manifest(out)["num_shards"]):
            with ShardWriter(out, shard, retry=True) as writer:
                todo = [index for index in writer.indices if index not in writer.done]
                shown.advance(len(writer.indices) - len(todo))
                # as many fields in memory as one segment has
                for segment in segments(plan.folder.results(todo, plan.reader.read), size):
                    writer.write_segment(segment)
                    mended |= any(r.weights is not None and r.index in writer.failed for r in segment)
                    shown.advance(len(segment))
                writer.finish()
    # the last command that mended something stands in the data card
    if mended:
        with locked(out / schema.LOCK):
            schema.write_manifest(out, schema.read_manifest(out) | {"command": command})
