"""Read a store: rows by number or id, batches, metrics; lazily, from any process, without loading whole shards."""

import operator
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from wsrl.durable import file_sha256
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.signals.form import SignalForm
from wsrl.signals.split_names import split_name
from wsrl.store import rows, schema
from wsrl.store.batches import Batch, BatchOptions, iterate
from wsrl.store.field import Field
from wsrl.store.rows import Table
from wsrl.store.shard import ShardFile
from wsrl.store.shards import Block, ShardSet


class WeightStore:
    """A directory of fields; make one with :meth:`open`.

    Rows are numbered in the order of the signals in their source. An object can be pickled and used after a fork: each
    process opens the files it needs by itself. Not to be shared between threads.

    Attributes:
        directory: The folder.
        manifest: The content of ``manifest.json``.
        layout: Names and shapes of a field's tensors.
        label_names: Class names; a label is a position in it.
    """

    def __init__(self, directory: Path, manifest: dict):
        self.directory = Path(os.path.abspath(directory))  # the working folder may change before a file is opened
        self.manifest = manifest
        self.layout = Layout.from_json(manifest["layout"])
        self.label_names = tuple(manifest["label_names"])
        self.shards = ShardSet(self.directory, manifest)

    @classmethod
    def open(cls, path: Path | str, *, partial: bool = False) -> "WeightStore":
        """Open a store, or one shard of it by itself.

        Args:
            path: The directory that ``wsrl build`` wrote, or a single ``shard-*.h5`` from it.
            partial: Accept an unfinished build and read the shards that it has finished so far.

        Raises:
            UserError: It is not a store, is newer than this library, unfinished, or lacks a shard.
        """
        path = Path(path)
        if path.is_file():
            return cls(path.parent, _manifest_of_shard(path))
        manifest = schema.read_manifest(path)
        if not (manifest["complete"] or partial):
            raise UserError(
                f"The store {path} is not finished: {len(manifest['shards'])} of {manifest['num_shards']} shards",
                allowed="a finished store, or WeightStore.open(path, partial=True)",
                do=f"continue the build: {manifest.get('command') or 'run the same `wsrl build` again'}",
            )
        store = cls(path, manifest)
        store.shards.check_sizes()
        return store

    def __getstate__(self) -> dict:
        return {"directory": self.directory, "manifest": self.manifest}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def __enter__(self) -> "WeightStore":
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; the next access opens them again."""
        self.shards.close()

    def __len__(self) -> int:
        return len(self.shards)

    def row(self, key: int | str) -> int:
        """The row number of an id; a number is checked, negative ones count from the end.

        Raises:
            UserError: There is no field of this id, or it is neither an id nor a whole number.
            IndexError: The number is out of range.
        """
        if isinstance(key, str):
            return self._row_of_id(key)
        try:
            if "bool" in str(getattr(key, "dtype", type(key).__name__)):
                raise TypeError  # True is no row, although Python counts it as 1
            number = operator.index(key)
        except TypeError:
            raise UserError(
                f"{key!r:.60} is no row of a store",
                allowed="one id, or one whole number that counts rows from 0",
                do="for several fields use [store[row] for row in ...], or store.batches",
            ) from None
        row = number + len(self) if number < 0 else number
        if not 0 <= row < len(self):
            raise IndexError(f"row {key} of a store of {len(self)} fields")
        return row

    def _row_of_id(self, key: str) -> int:
        row = self.shards.find(key)
        if row is not None:
            return row
        failed = dict(self.failures)
        raise UserError(
            f"The store {self.directory} has no field {key!r}" + (f": {failed[key]}" if key in failed else ""),
            allowed=f"one of its {len(self)} ids" + (f", such as {self.id_of(0)!r}" if len(self) else ""),
            do="look through store.ids and store.failures",
        )

    def id_of(self, row: int) -> str:
        """The id of a row."""
        block = self.shards.locate(self.row(row))
        return rows.decode(self.shards[block.shard].column("fields/id", slice(block.start, block.stop)))[0]

    def __getitem__(self, key: int | str) -> dict[str, Tensor]:
        """The weights of one field by row number or id; its checksum is compared.

        Raises:
            UserError: The row is damaged, or there is no such id.
            IndexError: The row number is out of range.
        """
        table = self.shards.read(self.shards.locate(self.row(key)))
        return {spec.name: torch.from_numpy(table[f"weights/{spec.name}"][0]) for spec in self.layout}

    def field(self, key: int | str) -> Field:
        """One field as a callable: coordinates ``(P, D)`` to values ``(P, C)``."""
        return Field(self.representation, self[key], self.form)

    def record(self, key: int | str) -> dict:
        """What is known of one field besides its weights: id, label, split, seed, status, metrics."""
        table = self.shards.read(self.shards.locate(self.row(key)))
        record = {"id": rows.decode(table["fields/id"])[0], "index": int(table["fields/index"][0])}
        label = int(table["fields/label"][0])
        record["label"] = self.label_names[label] if label >= 0 else None
        record["seed"] = int(table["fields/seed"][0])
        for name in ("split", "status", "signal_sha256"):
            record[name] = rows.decode(table[f"fields/{name}"])[0] or None
        names = [name for name in table if name.startswith("metrics/")]
        return record | {"metrics": {name.removeprefix("metrics/"): float(table[name][0]) for name in names}}

    def batches(
        self,
        size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        split: str | None = None,
        drop_last: bool = False,
        worker: tuple[int, int] = (0, 1),
        check: bool = True,
    ) -> Iterator[Batch]:
        """Go through the store once; see :class:`~wsrl.store.batches.BatchOptions` for the arguments."""
        options = BatchOptions(
            size=size,
            shuffle=shuffle,
            generator=generator,
            split=split,
            drop_last=drop_last,
            worker=worker,
            check=check,
        )
        return iterate(self, options)

    @property
    def form(self) -> SignalForm:
        """What the signals that the fields were fitted to have in common."""
        return SignalForm.from_json(self.manifest[schema.FORM])

    @cached_property
    def _split_codes(self) -> tuple[np.ndarray, list[str]]:
        """Split of each row as a small number, and the names of the numbers."""
        names: list[str] = []
        parts = [np.zeros(0, dtype=np.int16)]
        for shard in self.shards:
            values, inverse = np.unique(shard.column("fields/split"), return_inverse=True)
            values = rows.decode(values)
            names += [name for name in values if name not in names]
            parts.append(np.array([names.index(name) for name in values], dtype=np.int16)[inverse])
        return np.concatenate(parts), names

    def count(self, split: str | None = None) -> int:
        """Number of fields, of one split where it is given."""
        return len(self) if split is None else int(self._in_split(split).sum())

    def _in_split(self, split: str) -> np.ndarray:
        codes, names = self._split_codes
        if split not in names and split_name(split) in names:  # such as valid for val
            split = split_name(split)
        if split not in names:
            raise UserError(
                f"The store {self.directory} has no split {split!r}",
                allowed=", ".join(name or "'' (no split)" for name in names) or "none: it is empty",
                do="choose one of its splits, or none for all fields",
            )
        return codes == names.index(split)

    def blocks(self, split: str | None = None) -> list[Block]:
        """Runs of rows that are read at once; with ``split`` only its rows are kept."""
        return self.shards.blocks(None if split is None else self._in_split(split))

    def pool(self, blocks: Sequence[Block], *, check: bool = True) -> Table:
        """What batches of some of the :meth:`blocks` are made of; see :meth:`ShardSet.pool`."""
        return self.shards.pool(blocks, check=check)

    def batch(self, table: Table) -> Batch:
        """The batch of some rows of a :meth:`pool`."""
        return self.shards.batch(table)

    @property
    def ids(self) -> list[str]:
        """All ids in row order, read from the files at each call."""
        return self.shards.texts("fields/id")

    @property
    def indices(self) -> np.ndarray:
        """Position of each row's signal in its source."""
        return self.shards.column("fields/index").astype(np.int64)

    def labels(self) -> np.ndarray:
        """Class number of each row, -1 for none."""
        return self.shards.column("fields/label").astype(np.int64)

    def splits(self) -> np.ndarray:
        """Split name of each row, empty for none."""
        codes, names = self._split_codes
        return np.array(names or [""], dtype=str)[codes.astype(np.int64)]

    def statuses(self) -> np.ndarray:
        """Status of each row, such as ``ok``."""
        return np.array(self.shards.texts("fields/status"), dtype=str)

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics of any shard, sorted."""
        columns = {name for shard in self.shards for name in shard.columns()}
        return sorted(name.removeprefix("metrics/") for name in columns if name.startswith("metrics/"))

    def metrics(self, name: str) -> np.ndarray:
        """One metric of each row in float64, NaN where a field has none."""
        if name not in self.metric_names:
            raise UserError(
                f"The store {self.directory} has no metric {name!r}",
                allowed=", ".join(self.metric_names) or "none",
                do="choose one of its metrics",
            )
        return self.shards.column(f"metrics/{name}")

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Id and reason of each signal that could not be fitted."""
        failures = []
        for shard in self.shards:
            table = shard.failures()
            failures += zip(rows.decode(table["failures/id"]), rows.decode(table["failures/reason"]))
        return failures

    @cached_property
    def base(self):
        """The base field, None for standalone fields."""
        if self.manifest["base_sha256"] is None:
            return None
        from wsrl.fields.modulated_base import BaseField

        if not (self.directory / schema.BASE).is_dir():
            raise UserError(
                f"The store {self.directory} lacks its base field, the folder {schema.BASE}/",
                allowed="the folder as `wsrl build` wrote it",
                do="copy it back, or run the same `wsrl build` again",
            )
        base = BaseField.from_pretrained(self.directory / schema.BASE)
        if base.sha256() != self.manifest["base_sha256"]:
            raise UserError(
                f"The base field in {self.directory / schema.BASE} is not the one the fields were fitted with",
                allowed=f"a base field with hash {self.manifest['base_sha256']}",
                do="copy the right one back; its hash is in base_sha256 of the manifest",
            )
        return base

    @cached_property
    def prior_widths(self) -> Tensor | None:
        """Widths ``(W,)`` of the prior that the fields were fitted with; None where they are one for all weights."""
        fit = schema.LATER_FIT | self.manifest["fit"]
        if not (fit["prior_strength"] and fit["prior_scale"] == "data"):
            return None
        path = self.directory / schema.PRIOR
        if not path.is_file() or file_sha256(path) != self.manifest.get(schema.PRIOR_SHA256):
            raise UserError(
                f"{path}, the widths of the prior of the fits, is missing or not what the manifest says",
                allowed="the file as `wsrl build` wrote it",
                do="copy it back, or remove it and run the same `wsrl build` again",
            )
        return self.layout.flatten(load_file(path))

    @cached_property
    def representation(self):
        """How the weights become fields."""
        from wsrl.fields.open import open_representation

        return open_representation(self.manifest["representation"], self.base)


def _manifest_of_shard(path: Path) -> dict:
    with ShardFile(path) as shard:
        entry = {"file": path.name, "count": shard.count(), "failures": shard.count("failures/index")}
        return shard.header() | {"shards": [entry], "complete": False}
