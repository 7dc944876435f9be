"""What a folder of weights holds: which fields, in which order, under which ids and labels."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsrl.durable import file_sha256
from wsrl.errors import SignalError, UserError
from wsrl.exchange import labels as label_files
from wsrl.exchange import networks
from wsrl.exchange.labels import Entry, assign, id_of
from wsrl.exchange.peft_folders import CONFIG, adapter_files
from wsrl.fields.tensor_files import SUFFIXES
from wsrl.signals.passed_over import LINKED, describe_passed_over, ending
from wsrl.store import schema
from wsrl.store.rows import FitResult

# What stands beside the fields of an export and is read, or says nothing of its own.
BESIDE = (label_files.LABELS_FILE, networks.DESCRIPTION_FILE, "layout.json", "export.json")


@dataclass(frozen=True, kw_only=True)
class ImportFolder:
    """The fields of a folder; memory holds their names and labels, never their weights.

    Attributes:
        directory: The folder.
        files: Path in it of each field, in the order of the store to be.
        ids: Id of each field.
        entries: What the labels say, by file.
        num_asked: Entries of the labels, those without a file included; None without labels.
        passed_over: Number of files that are not read, by ending.
    """

    directory: Path
    files: list[str]
    ids: list[str]
    entries: dict[str, Entry] = field(default_factory=dict)
    num_asked: int | None = None
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Sorted class names."""
        return tuple(sorted({entry.label for entry in self.entries.values() if entry.label is not None}))

    @property
    def num_unlabelled(self) -> int:
        """Files that the labels do not name, or name without a label."""
        return sum(self.entries.get(file, Entry()).label is None for file in self.files)

    def hashes(self, index: int) -> str:
        """Hash of the content of one field's file or files."""
        path = self.directory / self.files[index]
        paths = [one for one in adapter_files(path) if one.is_file()] if path.is_dir() else [path]
        return file_sha256(*paths)

    def sha256(self, advance: Callable[[int], None] = lambda number: None) -> str:
        """One hash of the names and contents of all files."""
        digest = hashlib.sha256()
        for index, file in enumerate(self.files):
            digest.update(f"{file}\0{self.hash_or_reason(index)}\n".encode("utf-8", "surrogateescape"))
            advance(1)
        return digest.hexdigest()

    def labels_sha256(self) -> str:
        """One hash of ids, labels, splits and metrics."""
        digest = hashlib.sha256()
        for name, file in zip(self.ids, self.files):
            entry = self.entries.get(file, Entry())
            line = repr((name, entry.label, entry.split, sorted(entry.metrics.items())))
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def hash_or_reason(self, index: int) -> str:
        """Hash of the content of one field's file or files, or the system's number of why there is none."""
        try:
            return self.hashes(index)
        except OSError as error:  # becomes a failure when it is its turn
            return str(error.errno)

    def results(self, indices: Iterable[int], read: Callable[[Path], dict]) -> Iterator[FitResult]:
        """The row of each field, or its failure; one that cannot be read does not stop the others.

        Args:
            indices: Positions of the fields.
            read: From a path to weights; raises :class:`SignalError` with the reason.
        """
        for index in indices:
            file = self.files[index]
            entry = self.entries.get(file, Entry())
            common = {"index": index, "id": self.ids[index], "label": entry.label, "split": entry.split}
            try:
                weights = read(self.directory / file)
            except SignalError as error:
                yield FitResult(**common, status="failed", reason=str(error))
                continue
            metrics = dict(entry.metrics)
            yield FitResult(**common, weights=weights, metrics=metrics, signal_sha256=self.hashes(index))


def open_folder(
    directory: Path,
    kind: str,
    entries: list[Entry] | None = None,
    ignore_unmatched: bool = False,
    used: Collection[Path] = (),
) -> ImportFolder:
    """List the fields of a folder and give them ids and labels.

    Args:
        directory: The folder; looked through with its sub-folders.
        kind: ``state_dicts`` or ``peft``.
        entries: What a label file says; its order is that of the fields, those it does not name come last.
        ignore_unmatched: Leave out what the labels say of fields that are not there.
        used: Files that are read for something else, such as labels.

    Raises:
        UserError: The folder holds no field, two have one id, or the labels do not fit.
    """
    # Files of fields, and how many others there are.
    suffixes = SUFFIXES if kind == "state_dicts" else ()
    others: Counter = Counter()
    listed = _files if kind == "state_dicts" else _adapters
    files = sorted(listed(directory, others, used))
    if not files:
        what = f"files {', '.join(SUFFIXES)}" if kind == "state_dicts" else f"folders with {CONFIG}"
        skipped = f" ({describe_passed_over(others)})" if others else ""
        raise UserError(f"{directory} holds no fields{skipped}", allowed=f"a folder with {what}", do="check the path")
    # Labelled ones come first, in the order of the labels; each has an id of its own.
    known = assign(entries or [], files, suffixes, ignore_unmatched)
    ordered = [*known, *(file for file in files if file not in known)]
    ids = [id_of(known.get(file), file, suffixes) for file in ordered]
    check_ids(ids, ordered)
    return ImportFolder(
        directory=directory,
        files=ordered,
        ids=ids,
        entries=known,
        num_asked=None if entries is None else len({entry.asked for entry in entries}),
        passed_over=dict(sorted(others.items())),
    )


def check_ids(ids: list[str], files: list[str]) -> None:
    """Refuse two files of one id.

    Raises:
        UserError: There are such; both are named.
    """
    files_by_id: dict[str, str] = {}
    for name, file in zip(ids, files):
        if name in files_by_id:
            raise UserError(
                f"{files_by_id[name]} and {file} both have the id {name!r}",
                allowed="one file for each id",
                do="remove or rename one, or give them ids of their own in a CSV with the columns file, id, label",
            )
        files_by_id[name] = file


def walk(directory: Path, others: Counter, used: Collection[Path] = ()) -> Iterator[tuple[str, list[str]]]:
    """Folders below ``directory`` by their path in it, with their files.

    Hidden ones are left out, and so are, of an export, its base field and what describes it. Folders that are links
    are not entered.

    Args:
        directory: The folder.
        others: Counts the folders that are not entered.
        used: Files that are read for something else, such as labels.
    """
    root = os.path.realpath(directory)
    known = {*BESIDE, *(os.path.relpath(os.path.realpath(path), root).replace(os.sep, "/") for path in used)}
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(folder) == directory and schema.BASE in folders and is_base(directory / schema.BASE):
            folders.remove(schema.BASE)
        if linked := sum(os.path.islink(os.path.join(folder, name)) for name in folders):
            others[LINKED] += linked
        inside = os.path.relpath(folder, directory).replace(os.sep, "/")
        inside = "" if inside == "." else f"{inside}/"
        yield inside, [name for name in names if not name.startswith(".") and inside + name not in known]


def is_base(folder: Path) -> bool:
    """Whether a folder looks like a base field."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def _files(directory: Path, others: Counter, used: Collection[Path]) -> Iterator[str]:
    for inside, names in walk(directory, others, used):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield inside + name
            else:
                others[ending(name)] += 1


def _adapters(directory: Path, others: Counter, used: Collection[Path]) -> Iterator[str]:
    for inside, names in walk(directory, others, used):
        if inside and CONFIG in names:
            yield inside.removesuffix("/")
        else:  # what else an adapter's folder holds belongs to it
            others.update(map(ending, names))
