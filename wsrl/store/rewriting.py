"""Stores that are made of other stores: the same signals, metrics and base field, and weights of the same functions."""

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.progress import ShowProgress, silent
from wsrl.store import schema
from wsrl.store.directory import create_or_resume
from wsrl.store.reader import WeightStore
from wsrl.store.rows import FitResult, Table, decode
from wsrl.store.writer import ShardWriter


@dataclass(frozen=True)
class Rewritten:
    """Some fields as they are written anew.

    Attributes:
        weights: Weights ``(N, *shape)`` of the same functions.
        before: What their rewriting makes smaller, such as a distance, ``(N,)``.
        after: The same afterwards.
    """

    weights: dict[str, Tensor]
    before: Tensor
    after: Tensor


@dataclass(frozen=True, kw_only=True)
class AlignedFields:
    """What an alignment did.

    Attributes:
        num_fields: Fields that were aligned by this run; those of earlier runs are kept.
        elapsed_s: Seconds that their alignment took, reading and writing included, the template not.
        cpu_s: Seconds of this process's own computing among them, whatever else the machine did.
        before: Mean of what alignment makes smaller, before; NaN where no field was aligned.
        after: The same afterwards.
    """

    num_fields: int
    elapsed_s: float
    cpu_s: float
    before: float
    after: float


def refuse_itself(path: Path, out: Path) -> None:
    """Refuse to write a store over the one that it is made of.

    Raises:
        UserError: They are the same folder.
    """
    if path.resolve() == out.resolve():
        raise UserError(f"{out} is the store itself", allowed="another folder", do="choose another --out")


def create_like(store: WeightStore, out: Path, told: dict[str, Any], options: Sequence[str]) -> None:
    """Make a store for the fields of another one, or check that the one there is of the same alignment.

    Args:
        store: The store that is rewritten.
        out: Folder of the new one.
        told: How it is aligned; kept in the manifest and on the card under ``fit.aligned``, with a hash of the store.
        options: Words of ``wsrl align`` that say the same.

    Raises:
        UserError: ``out`` is something else.
    """
    manifest = store.manifest
    shards = [[entry["file"], entry["sha256"]] for entry in manifest["shards"]]
    aligned = told | {"store_sha256": hashlib.sha256(json.dumps(shards).encode()).hexdigest()}
    create_or_resume(
        out,
        layout=store.layout,
        representation=manifest["representation"],
        base_sha256=manifest["base_sha256"],
        source=manifest["source"],
        form=store.form,
        fit=manifest["fit"] | {"aligned": aligned},
        num_signals=manifest["num_signals"],
        num_shards=manifest["num_shards"],
        label_names=store.label_names,
        save_base=(lambda folder: shutil.copytree(store.directory / schema.BASE, folder, dirs_exist_ok=True))
        if manifest["base_sha256"]
        else None,
        command=shlex.join(["wsrl", "align", str(store.directory), *options, "--out", str(out)]),
    )


def rewrite_fields(
    store: WeightStore,
    out: Path,
    rewritten: Callable[[dict[str, Tensor]], Rewritten],
    progress: ShowProgress = silent,
) -> AlignedFields:
    """Rewrite every field that has no row yet in the new store.

    Args:
        store: The store that is rewritten.
        out: Folder of the new one, as :func:`create_like` made it.
        rewritten: From weights ``(N, *shape)`` to what is written in their place.
        progress: Shows how many fields are done.
    """
    started, cpu, num, before, after = time.monotonic(), time.process_time(), 0, 0.0, 0.0
    names = [spec.name for spec in store.layout]
    with progress("align", len(store)) as shown:
        for number, shard in enumerate(store.shards):
            with ShardWriter(out, number) as writer:
                # Rows that an earlier run finished are kept.
                shown.advance(len(writer.done.intersection(shard.column("fields/index").tolist())))
                for results in fields_of_shard(store, number, frozenset(writer.done)):
                    found = rewritten({name: torch.stack([r.weights[name] for r in results]) for name in names})
                    rows = [
                        replace(r, weights={k: t[i] for k, t in found.weights.items()}) for i, r in enumerate(results)
                    ]
                    writer.write_segment(rows)
                    num += len(rows)
                    before += float(found.before.sum())
                    after += float(found.after.sum())
                    shown.advance(len(rows))
                # What could not be fitted stays recorded.
                writer.write_segment(failures_of_shard(store, number, writer.done))
                writer.finish()
    share = num or float("nan")
    return AlignedFields(
        num_fields=num,
        elapsed_s=time.monotonic() - started,
        cpu_s=time.process_time() - cpu,
        before=before / share,
        after=after / share,
    )


AT_ONCE = 1024


def fields_of_shard(store: WeightStore, number: int, without: Set[int] = frozenset()) -> Iterator[list[FitResult]]:
    """The fields of one shard, ``AT_ONCE`` and at most a block more at a time; every row is compared with its checksum.

    Args:
        store: The store.
        number: Index of the shard in the manifest.
        without: Source indices to leave out.

    Raises:
        UserError: A row is damaged.
    """
    pending: list[FitResult] = []
    for block in store.blocks():
        if block.shard == number:
            pending += [result for result in _fields(store, store.shards.read(block)) if result.index not in without]
            if len(pending) >= AT_ONCE:
                yield pending
                pending = []
    if pending:
        yield pending


def failures_of_shard(store: WeightStore, number: int, without: Set[int] = frozenset()) -> list[FitResult]:
    """The signals of one shard that have no field.

    Args:
        store: The store.
        number: Index of the shard in the manifest.
        without: Source indices to leave out.
    """
    table = store.shards[number].failures()
    names, reasons = decode(table["failures/id"]), decode(table["failures/reason"])
    return [
        FitResult(index=index, id=name, status="failed", reason=reason)
        for index, name, reason in zip(table["failures/index"].tolist(), names, reasons)
        if index not in without
    ]


def _fields(store: WeightStore, table: Table) -> Iterator[FitResult]:
    texts = {name: decode(table[f"fields/{name}"]) for name in ("id", "split", "status", "signal_sha256")}
    labels, seeds = table["fields/label"].tolist(), table["fields/seed"].tolist()
    metrics = {name.removeprefix("metrics/"): table[name] for name in table if name.startswith("metrics/")}
    weights = {spec.name: torch.from_numpy(table[f"weights/{spec.name}"]) for spec in store.layout}
    for i, index in enumerate(table["fields/index"].tolist()):
        yield FitResult(
            index=index,
            id=texts["id"][i],
            status=texts["status"][i],
            weights={name: tensor[i] for name, tensor in weights.items()},
            metrics={name: float(column[i]) for name, column in metrics.items()},
            seed=seeds[i],
            signal_sha256=texts["signal_sha256"][i],
            label=store.label_names[labels[i]] if labels[i] >= 0 else None,
            split=texts["split"][i] or None,
        )
