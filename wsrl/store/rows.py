"""Rows of a store: the outcome of a fit, and columns of outcomes as HDF5 keeps them.

A *table* is a dictionary from a column's path in the file (``weights/layers.0.down``, ``fields/id``, ``metrics/psnr``)
to an array with one entry per row. Strings are UTF-8 bytes of fixed length, padded with zeros.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import h5py
import numpy as np
import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.store.checksums import row_digests

Table = dict[str, np.ndarray]

TEXT_COLUMNS = ("fields/id", "fields/split", "fields/status", "fields/signal_sha256")
NUMBER_COLUMNS = {"fields/index": "<i8", "fields/label": "<i4", "fields/seed": "<i8"}
FAILURE_COLUMNS = ("failures/index", "failures/id", "failures/reason", "failures/checksum")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The outcome for one signal.

    Attributes:
        index: Position of the signal in its source.
        id: Stable name of the signal.
        status: ``ok`` for a fitted field; ``short`` for one that did not reach the asked-for quality; ``failed`` where
            there is none (see ``reason``).
        weights: One tensor per entry of the layout, on the CPU, without a batch axis; None where failed.
        metrics: Plain numbers such as ``psnr`` (dB), ``ssim``, ``loss`` (mean squared error), ``steps``.
        seed: Seed of the field's own random numbers.
        signal_sha256: Hash of the signal's coordinates and values.
        label: Class name, or None.
        split: Split name, or None.
        reason: Why there is no field, one line.
    """

    index: int
    id: str
    status: str = "ok"
    weights: dict[str, Tensor] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    signal_sha256: str = ""
    label: str | None = None
    split: str | None = None
    reason: str = ""


def encode(texts: Iterable[str]) -> np.ndarray:
    """Texts as fixed-length UTF-8; names of files that are not UTF-8 survive too."""
    return np.array([text.encode("utf-8", "surrogateescape") for text in texts], dtype=np.bytes_)


def decode(column: np.ndarray) -> list[str]:
    """The inverse of :func:`encode`."""
    return [text.decode("utf-8", "surrogateescape") for text in column.tolist()]


def _label_index(result: FitResult, label_names: Sequence[str]) -> int:
    if result.label is None:
        return -1
    if result.label not in label_names:
        raise UserError(
            f"Signal {result.id} has the label {result.label!r}, which the store does not know",
            allowed=", ".join(label_names) or "no labels",
            do="build into a new folder: the labels of the source have changed",
        )
    return label_names.index(result.label)


def to_table(results: Sequence[FitResult], layout: Layout, label_names: Sequence[str]) -> Table:
    """Columns with checksums for fitted and failed signals, both in the order given.

    Args:
        results: Outcomes; those without weights become failures.
        layout: The tensors that every field has.
        label_names: Class names; a label is stored as its position here, -1 for none.

    Returns:
        One table whose ``failures/*`` columns have a length of their own.
    """
    # Fields and failures have rows of their own.
    fitted = [result for result in results if result.weights is not None]
    failed = [result for result in results if result.weights is None]
    # Weights, (n, *shape) for each tensor.
    table: Table = {}
    for spec in layout:
        stacked = np.zeros((len(fitted), *spec.shape), dtype="<f4")
        for row, result in enumerate(fitted):
            tensor = result.weights[spec.name].detach()
            assert tuple(tensor.shape) == spec.shape, f"{result.id}: {spec.name} is {tuple(tensor.shape)}"
            stacked[row] = tensor.to(torch.float32).cpu().numpy()
        table[f"weights/{spec.name}"] = stacked
    # What is known of each signal and of its fit; a metric that some fits lack is NaN there.
    table["fields/index"] = np.array([result.index for result in fitted], dtype="<i8")
    table["fields/label"] = np.array([_label_index(result, label_names) for result in fitted], dtype="<i4")
    table["fields/seed"] = np.array([result.seed for result in fitted], dtype="<i8")
    table["fields/id"] = encode(result.id for result in fitted)
    table["fields/split"] = encode(result.split or "" for result in fitted)
    table["fields/status"] = encode(result.status for result in fitted)
    table["fields/signal_sha256"] = encode(result.signal_sha256 for result in fitted)
    for name in sorted({name for result in fitted for name in result.metrics}):
        values = [float(result.metrics.get(name, np.nan)) for result in fitted]
        table[f"metrics/{name}"] = np.array(values, dtype="<f8")
    # Why there is no field, and a checksum of each row of either kind.
    table["failures/index"] = np.array([result.index for result in failed], dtype="<i8")
    table["failures/id"] = encode(result.id for result in failed)
    table["failures/reason"] = encode(" ".join(result.reason.split()) for result in failed)
    table["checksum"] = checksums(table, layout)
    table["failures/checksum"] = failure_checksums(table)
    return table


def checksums(table: Table, layout: Layout) -> np.ndarray:
    """Checksum ``(n, 16)`` of each fitted row over all that is stored of it.

    The order is: weights in layout order, index, label, seed, metrics by name; then id, split, status and signal hash,
    each after its length as four bytes. All numbers are little-endian.
    """
    fixed = [table[f"weights/{spec.name}"] for spec in layout]
    fixed += [table[name] for name in NUMBER_COLUMNS]
    fixed += [table[name] for name in sorted(table) if name.startswith("metrics/")]
    return row_digests(fixed, [table[name] for name in TEXT_COLUMNS])


def failure_checksums(table: Table) -> np.ndarray:
    """Checksum ``(n, 16)`` of each failure over index, id and reason."""
    return row_digests([table["failures/index"]], [table["failures/id"], table["failures/reason"]])


def wrong_rows(table: Table, layout: Layout) -> np.ndarray:
    """Positions in ``table`` of the fitted rows whose content does not give their checksum."""
    return np.flatnonzero((checksums(table, layout) != table["checksum"]).any(axis=1))


def wrong_failures(table: Table) -> np.ndarray:
    """Positions of the failures whose content does not give their checksum."""
    return np.flatnonzero((failure_checksums(table) != table["failures/checksum"]).any(axis=1))


def file_dtype(dtype: np.dtype) -> np.dtype:
    """The HDF5 type of a column: texts are marked as UTF-8 so that any HDF5 tool shows them."""
    return h5py.string_dtype("utf-8", max(dtype.itemsize, 1)) if dtype.kind == "S" else dtype


def is_failure_column(name: str) -> bool:
    """Whether a column has one entry per failure, not one per fitted row."""
    return name.startswith("failures/")
