"""The rows of a store as what a fit gives, for stores that are made of other stores."""

from collections.abc import Iterator, Set

import torch

from wsrl.store.reader import WeightStore
from wsrl.store.rows import FitResult, Table, decode

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
