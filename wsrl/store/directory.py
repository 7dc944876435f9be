"""The directory of a store: make it or check that it is of the same build, record what was done, complete it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from wsrl.durable import disk_errors, file_sha256, locked, sync, whole, write_bytes
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.options import at_least, check_values
from wsrl.signals.form import SignalForm
from wsrl.store import schema
from wsrl.store.card import data_card
from wsrl.store.reader import WeightStore
from wsrl.store.shard import ShardFile


def create_or_resume(
    directory: Path | str,
    *,
    layout: Layout,
    representation: dict,
    base_sha256: str | None,
    source: dict,
    form: SignalForm | None = None,
    fit: dict,
    num_signals: int,
    num_shards: int,
    label_names: Sequence[str],
    save_base: Callable[[Path], None] | None = None,
    command: str = "",
    passed_over: Mapping[str, int] | None = None,
    sizes: str = "",
    mended: str | None = None,
) -> None:
    """Make the store's directory, or check that what is there is the same build.

    Args:
        directory: The store; made with its parents where missing.
        layout: Tensors of a field.
        representation: Plain JSON from which the representation is rebuilt.
        base_sha256: Hash of the base field, None for standalone fields.
        source: Plain JSON that identifies the signals.
        form: What the signals have in common; None as far as the source and the representation tell it.
        fit: Configuration of the fit, plain JSON.
        num_signals: Signals of the source, bad ones included.
        num_shards: Shards that they are spread over.
        label_names: Class names in the order of their stored numbers.
        save_base: Called with the path of a new folder to write the base field to.
        command: The command that makes the store again; kept for the data card.
        passed_over: Number of files beside the signals that were not read, by ending; told in the data card.
        sizes: Why the fields have the size that they have, for the data card.
        mended: Key of ``source`` that may differ from that of the store, since only signals without a field changed;
            all shards are then to be finished again, with ``ShardWriter(..., retry=True)``. The command is kept anew.

    Raises:
        UserError: The folder holds something else or another build, or cannot be written.
    """
    check_values({"num_shards": num_shards}, num_shards=at_least(1))
    directory = Path(directory)
    # What makes two builds the same, in the form in which a manifest gives it back.
    asked = {"representation": representation, "layout": layout.to_json(), "base_sha256": base_sha256, "source": source}
    asked |= {"fit": fit, "num_signals": num_signals, "num_shards": num_shards, "label_names": list(label_names)}
    form = form or SignalForm.from_description(source, representation)
    asked = json.loads(json.dumps(asked | {schema.FORM: form.to_json()}))
    _claim(directory)
    # Under the lock one process writes the manifest, and the others compare theirs with it.
    with locked(directory / schema.LOCK):
        if (directory / schema.MANIFEST).exists():
            _renew(directory, asked["source"], mended, command)
            _check_same_build(directory, asked)
        else:
            head = {"schema": schema.SCHEMA, "version": schema.VERSION, "complete": False, "command": command}
            schema.write_manifest(directory, head | asked | {"shards": []} | ({schema.SIZES: sizes} if sizes else {}))
        _note(directory, dict(passed_over or {}))
        if save_base is not None:
            _save_base(directory, save_base)


def _renew(directory: Path, source: dict, mended: str | None, command: str) -> None:
    """Take over a source that differs from that of the manifest in the one key that may differ, if any may."""
    if mended is None:
        return
    there = schema.read_manifest(directory)
    if there["source"] | {mended: source[mended]} == source:
        renewed = {"source": source, "command": command, "shards": [], "complete": False}
        schema.write_manifest(directory, there | renewed)


def _note(directory: Path, passed_over: dict[str, int]) -> None:
    """Keep in the manifest what was passed over this time, and forget shards whose file was deleted.

    Neither says anything of the signals; a shard that is gone is made again, as the message for a damaged one promises.
    """
    there = schema.read_manifest(directory)
    kept = [entry for entry in there["shards"] if (directory / entry["file"]).exists()]
    new = there if len(kept) == len(there["shards"]) else there | {"shards": kept, "complete": False}
    if there.get(schema.PASSED_OVER, {}) != passed_over:
        new = new | {schema.PASSED_OVER: passed_over}
    if new != there:
        schema.write_manifest(directory, new)


def _claim(directory: Path) -> None:
    """Make the folder, or refuse one with the files of others."""
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    foreign = [entry.name for entry in directory.iterdir() if not _is_ours(entry.name)]
    if foreign and not (directory / schema.MANIFEST).exists():
        raise UserError(
            f"{directory} is an output folder that is not ours: it holds {foreign[0]!r} and no {schema.MANIFEST}",
            allowed="a new or empty folder, or a store of the same build",
            do="choose another folder",
        )


def _is_ours(name: str) -> bool:
    """Whether a store without its manifest may hold such a file: what a build killed at its first instant leaves."""
    return name == schema.LOCK or (name.startswith(f".{schema.MANIFEST}.") and name.endswith(".tmp"))


def _check_same_build(directory: Path, asked: dict) -> None:
    there = schema.read_manifest(directory)
    there, asked = (build | {"fit": schema.LATER_FIT | build["fit"]} for build in (there, asked))
    for key in schema.BUILD_KEYS:
        difference = schema.first_difference(there[key], asked[key], key)
        if difference:
            name, old, new = difference
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
    with whole(final, alone=True) as temporary:
        temporary.mkdir()
        save_base(temporary)


def keep_prior(directory: Path | str, layout: Layout, first_pass: Callable[[], Tensor]) -> None:
    """Write the widths of the prior of a store's fits, unless they are there; others wait meanwhile.

    Args:
        directory: The store.
        layout: Tensors of a field.
        first_pass: Finds the widths ``(W,)``.
    """
    directory = Path(directory)
    with locked(directory / schema.LOCK):
        manifest = schema.read_manifest(directory)
        if schema.PRIOR_SHA256 in manifest and (directory / schema.PRIOR).is_file():
            return
        widths = {name: tensor.contiguous() for name, tensor in layout.unflatten(first_pass()).items()}
        with whole(directory / schema.PRIOR) as temporary:
            save_file(widths, temporary)
        sha256 = file_sha256(directory / schema.PRIOR)
        schema.write_manifest(directory, manifest | {schema.PRIOR_SHA256: sha256})


def record_environment(directory: Path | str, environment: dict) -> None:
    """Add an environment to the manifest, unless an equal one is there.

    Args:
        directory: The store.
        environment: Plain JSON: code, versions, machine, threads; without times, so that equal ones are equal.
    """
    directory = Path(directory)
    environment = json.loads(json.dumps(environment, default=str))
    with locked(directory / schema.LOCK):
        manifest = schema.read_manifest(directory)
        known = manifest.get(schema.ENVIRONMENTS, [])
        if environment not in known:
            schema.write_manifest(directory, manifest | {schema.ENVIRONMENTS: [*known, environment]})


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
