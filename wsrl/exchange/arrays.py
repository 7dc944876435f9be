"""Read fields from the NumPy form of an export: one array of all weights, mapped into memory, and a table of labels."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.exchange.folders import ImportFolder, walk
from wsrl.exchange.labels import Entry
from wsrl.fields.layout import Layout
from wsrl.fields.tensor_files import as_weights
from wsrl.signals.passed_over import ending

ARRAY = "weights.npy"


class ArrayReader:
    """Reads fields from rows of ``weights.npy``; no more than a row is in memory.

    Args:
        path: The array ``(N, W)``.
        layout: The tensors that a row is made of, in their order.
        rounding: Round numbers that float32 cannot hold.

    Raises:
        UserError: It is no such array.
    """

    def __init__(self, path: Path, layout: Layout, rounding: bool = False):
        self.path, self.layout, self.rounding = path, layout, rounding
        allowed = f"an array (fields, {layout.num_weights}) of plain numbers, as wsrl export --format numpy writes it"
        try:
            self.array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{path} cannot be read ({error})", allowed=allowed, do="export it again") from error
        if self.array.ndim != 2 or self.array.shape[1] != layout.num_weights or self.array.dtype.kind != "f":
            raise UserError(f"{path} is {self.array.dtype} {self.array.shape}", allowed=allowed, do="check --network")

    def __len__(self) -> int:
        return len(self.array)

    def read(self, path: Path) -> dict[str, Tensor]:
        """Weights, float32, of the field in the row that the last part of ``path`` numbers.

        Raises:
            SignalError: A number is not finite or not exact in float32.
        """
        row = int(path.name)
        flat = torch.from_numpy(np.array(self.array[row]))  # (W,)
        return as_weights(self.layout.unflatten(flat), self.layout, f"{self.path.name}, row {row}", self.rounding)


@dataclass(frozen=True, kw_only=True)
class ArrayFolder(ImportFolder):
    """Fields in rows of an array; their files are the numbers of the rows."""

    array: Sequence

    def hashes(self, index: int) -> str:
        """Hash of the bytes of one row."""
        return hashlib.sha256(self.array[index].tobytes()).hexdigest()


def open_arrays(
    directory: Path,
    layout: Layout,
    entries: list[Entry] | None,
    rounding: bool = False,
    used: Collection[Path] = (),
):
    """The fields of a NumPy export and what reads them.

    Args:
        directory: The folder with ``weights.npy``.
        layout: The tensors that a row is made of.
        entries: Ids and labels of the rows, in their order; None numbers them.
        rounding: Round numbers that float32 cannot hold.
        used: Files that are read for something else, such as labels.

    Raises:
        UserError: The array does not fit, or there are more or fewer ids than rows.
    """
    # One row for each entry of the labels, which are in its order.
    reader = ArrayReader(directory / ARRAY, layout, rounding)
    rows = [str(row) for row in range(len(reader))]
    if not rows or len(rows) != len(entries if entries is not None else rows):
        raise UserError(
            f"{directory / ARRAY} has {len(rows)} rows, and the labels name {len(entries or ())} fields",
            allowed="at least one row, and one entry in the labels for each, in the same order",
            do="export it again, or mend the labels",
        )
    # Ids are those of the labels, or numbers.
    num_asked = None if entries is None else len(entries)
    entries = entries or [Entry(id=f"{row:0>6}") for row in rows]
    ids = [entry.id or entry.file for entry in entries]
    if twice := [name for name, number in Counter(ids).items() if number > 1]:
        raise UserError(f"the labels name {twice[0]!r} twice", allowed="each row once", do="mend the labels")
    # Other files of the folder are counted, not read.
    others: Counter = Counter()
    for _, names in walk(directory, others, (*used, directory / ARRAY)):
        others.update(map(ending, names))
    folder = ArrayFolder(
        directory=directory,
        files=rows,
        ids=ids,
        entries=dict(zip(rows, entries)),
        num_asked=num_asked,
        passed_over=dict(sorted(others.items())),
        array=reader.array,
    )
    return folder, reader
