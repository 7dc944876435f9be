"""One HDF5 file of rows: a finished shard, or a segment of one; both have the same format.

Datasets are contiguous (no chunks, no compression): a run of rows is one read per column, a single row costs no more
than its bytes, and nothing is cached. ``B`` below stands for rows of a block.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.store import rows
from wsrl.store.checksums import fingerprint
from wsrl.store.rows import Table
from wsrl.store.schema import check_version, with_form

BLOCK_BYTES = 4 << 20
BLOCK_ROWS = 256
# Fingerprint of each block of a finished shard, `(blocks,)`; shards of older versions have none.
FINGERPRINTS = "blocks/fingerprint"


def block_rows(layout: Layout) -> int:
    """Rows that are read at once: 256, fewer where fields are so large that these would exceed 4 MiB."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(4 * layout.num_weights, 1)))


def write_header(file: h5py.File, header: dict) -> None:
    """Store each entry of ``header`` as JSON in an attribute of its own."""
    for key, value in header.items():
        file.attrs[key] = json.dumps(value)


def table_bytes(table: Table, header: dict) -> bytes:
    """A small table as the bytes of an HDF5 file, made in memory so that a full disk cannot corrupt HDF5's state."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write_header(file, header)
        for name, column in table.items():
            dtype = rows.file_dtype(column.dtype)
            file.create_dataset(name, data=column.astype(dtype), dtype=dtype)
    return buffer.getvalue()


class ShardFile:
    """Read access to one file; opened on first use, anew in each process, and never held across pickling.

    Args:
        path: The HDF5 file.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = -1
        self._header: dict | None = None
        self._fingerprints: tuple[int, np.ndarray] | None = None
        self._columns: tuple[str, ...] | None = None
        self._datasets: dict[str, h5py.Dataset] = {}

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def __enter__(self) -> "ShardFile":
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        file, self._file, self._datasets = self._file, None, {}
        if file is not None:
            file.close()

    def broken(self, error: object, row: int | None = None) -> UserError:
        """The message for a file whose content cannot be used."""
        where = f"{self.path}" if row is None else f"{self.path}, row {row}"
        return UserError(
            f"{where}: {error}",
            allowed="a shard as `wsrl build` wrote it",
            do="run `wsrl verify` for a full list, delete the damaged file and run the same `wsrl build` again: "
            "only its rows are fitted again",
        )

    @property
    def file(self) -> h5py.File:
        """The open file of this process.

        Raises:
            UserError: The file is missing, truncated, or not one of ours.
        """
        if self._file is None or self._process != os.getpid():
            self._file, self._datasets = None, {}
            try:
                # Finished files never change, and read-only media allow no locks.
                self._file = h5py.File(self.path, "r", locking=False)
            except FileNotFoundError:
                raise self.broken("the file is missing") from None
            except OSError as error:
                raise self.broken(f"the file is truncated or damaged ({error})") from error
            self._process = os.getpid()
            check_version(self.header(), self.path)
        return self._file

    def header(self) -> dict:
        """The attributes: schema, layout, representation and what else identifies the build."""
        if self._header is None:
            self._header = self._read_header()
        return self._header

    def _read_header(self) -> dict:
        try:
            return with_form({key: json.loads(value) for key, value in (self._file or self.file).attrs.items()})
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise self.broken(f"the attributes cannot be read ({error})") from error

    def columns(self) -> tuple[str, ...]:
        """Paths of all columns."""
        if self._columns is None:
            try:
                file = self.file
                paths = [name for name in file if isinstance(file[name], h5py.Dataset)]
                for group in ("fields", "metrics", "failures"):
                    paths += [f"{group}/{name}" for name in file.get(group, ())]
                specs = Layout.from_json(self.header()["layout"])
                self._columns = tuple(paths + [f"weights/{spec.name}" for spec in specs])
            except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise error if isinstance(error, UserError) else self.broken(f"unreadable ({error})") from error
        return self._columns

    def dataset(self, name: str) -> h5py.Dataset:
        """One column as it lies in the file."""
        file = self.file
        if name not in self._datasets:
            try:
                self._datasets[name] = file[name]
            except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise self.broken(f"{name} cannot be read ({error})") from error
        return self._datasets[name]

    def column(self, name: str, part: slice = slice(None)) -> np.ndarray:
        """One column or a run of it."""
        try:
            return self.dataset(name)[part]
        except (OSError, RuntimeError, TypeError) as error:
            raise self.broken(f"{name} cannot be read ({error})") from error

    def count(self, name: str = "fields/index") -> int:
        """Rows of a column, by default fitted rows."""
        shape = self.dataset(name).shape
        if not shape:
            raise self.broken(f"{name} is not a column")
        return shape[0]

    def location(self, name: str) -> tuple[int, np.dtype, tuple[int, ...]]:
        """Where a column lies in the file: offset in bytes, type and shape."""
        file = self.file
        try:
            dataset = h5py.h5d.open(file.id, name.encode())  # thrice as fast as h5py's own objects
            offset, dtype, shape = dataset.get_offset(), dataset.dtype, dataset.shape
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise self.broken(f"{name} cannot be read ({error})") from error
        if offset is None:
            raise self.broken(f"{name} does not lie in one piece")
        return offset, dtype, shape

    def fingerprints(self) -> tuple[int, np.ndarray]:
        """Rows of a block and the fingerprint of each block; zero rows where the file has none."""
        if self._fingerprints is None:
            try:
                dataset = self.file.get(FINGERPRINTS)
                none = (0, np.zeros(0, dtype="<u8"))
                self._fingerprints = none if dataset is None else (int(dataset.attrs["rows"]), dataset[:])
            except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise self.broken(f"{FINGERPRINTS} cannot be read ({error})") from error
        return self._fingerprints

    def read(self, part: slice = slice(None)) -> Table:
        """All columns of a run of fitted rows."""
        return {name: self.column(name, part) for name in self.columns() if not rows.is_failure_column(name)}

    def failures(self) -> Table:
        """All columns of the failures."""
        return {name: self.column(name) for name in rows.FAILURE_COLUMNS}

    def agrees(self, start: int, columns: Iterable[np.ndarray]) -> bool | None:
        """Whether the block that begins at a row has its stored fingerprint; None where none is stored for it.

        Args:
            start: First row of the block.
            columns: The columns of its fitted rows, sorted by name.
        """
        stored = self.stored_fingerprint(start)
        return None if stored is None else fingerprint(columns) == stored

    def stored_fingerprint(self, start: int) -> int | None:
        """The fingerprint of the block that begins at a row; None where none is stored for it."""
        size, fingerprints = self.fingerprints()
        if not size or start % size or start // size >= len(fingerprints):
            return None
        return int(fingerprints[start // size])

    def blocks(self, layout: Layout) -> Iterator[tuple[int, Table]]:
        """The first row and the table of each block, in file order, one block in memory at a time."""
        size = self.fingerprints()[0] or block_rows(layout)
        for start in range(0, self.count(), size):
            yield start, self.read(slice(start, start + size))
