"""Labels and splits of fields from a CSV or JSON file, as zoos and data sets publish them."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wsrl.errors import UserError

FILE = "labels.csv"
COLUMNS = {
    "id": ("id", "name", "key"),
    "file": ("file", "filename", "path"),
    "label": ("label", "class", "category"),
    "split": ("split", "subset"),
}
METRICS = "metrics."
FORMS = (
    "CSV with a header: id or file, label, and if there are any split and metrics.<name>; "
    "JSON: {id: label}, {split: [ids]}, {split: {id: label}}, {id: {label:, split:}} or a list of records"
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a label file says of one field.

    Attributes:
        id: Its id; None takes the file's name.
        file: Its file in the folder; None finds it by the id.
        label: Class name, or None.
        split: Split name, or None.
        metrics: Numbers such as ``psnr``.
    """

    id: str | None = None
    file: str | None = None
    label: str | None = None
    split: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def read_labels(path: Path) -> list[Entry]:
    """Entries of a label file in its order.

    Raises:
        UserError: The file has none of the forms, or names a field twice.
    """
    try:
        records = _json_records(path) if path.suffix == ".json" else _csv_records(path)
        entries = [_entry(record) for record in records]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        wrong = error.wrong if isinstance(error, UserError) else str(error)
        raise UserError(f"the labels {path}: {wrong}", allowed=FORMS, do="mend the file") from error
    seen: set[str] = set()
    for entry in entries:
        for key in {entry.id, entry.file} - {None}:
            if key in seen:
                raise UserError(f"the labels {path} name {key!r} twice", allowed="each field once", do="mend the file")
            seen.add(key)
    return entries


def _csv_records(path: Path) -> Iterator[dict]:
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        names = {_known(name): name for name in reader.fieldnames or ()}
        if not names.keys() & {"id", "file"}:
            raise UserError(f"its header is {', '.join(map(str, reader.fieldnames or ())) or 'missing'}")
        for number, row in enumerate(reader, start=2):
            if None in row or None in row.values():
                raise UserError(f"line {number} has another number of columns than the header")
            yield {known: row[name] for known, name in names.items() if known}


def _known(name: str) -> str | None:
    """Our name of a column; None where it says nothing to us."""
    if name.startswith(METRICS):
        return name
    return next((ours for ours, theirs in COLUMNS.items() if name.strip().lower() in theirs), None)


def _json_records(path: Path) -> Iterator[dict]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        for record in content:
            known = {_known(name): value for name, value in record.items()}
            yield {name: value for name, value in known.items() if name}
        return
    for key, value in content.items():
        if isinstance(value, list):
            yield from ({"id": str(name), "split": key} for name in value)
        elif isinstance(value, dict) and value and all(_known(name) in ("label", "split", "file") for name in value):
            yield {"id": key} | {_known(name): inner for name, inner in value.items()}
        elif isinstance(value, dict):
            yield from ({"id": name, "split": key, "label": label} for name, label in value.items())
        else:
            yield {"id": key, "label": value}


def _entry(record: dict) -> Entry:
    texts = {name: None if record.get(name) in (None, "") else str(record[name]) for name in COLUMNS}
    if texts["id"] is None and texts["file"] is None:
        raise UserError("an entry has neither id nor file")
    metrics = {
        name.removeprefix(METRICS): float(value)
        for name, value in record.items()
        if name.startswith(METRICS) and value not in (None, "")
    }
    return Entry(**texts, metrics=metrics)


def assign(
    entries: list[Entry], files: list[str], suffixes: tuple[str, ...], ignore_unmatched: bool = False
) -> dict[str, Entry]:
    """The entry of each file that has one.

    Args:
        entries: What the label file says.
        files: Paths in the folder, with ``/``.
        suffixes: Suffixes of files that are no part of an id.
        ignore_unmatched: Leave out entries without a file.

    Returns:
        Entries by file. An entry finds its file by the path, with or without its suffix, or else by the name alone.

    Raises:
        UserError: An entry finds no file, or more than one, or two find the same.
    """
    paths = _index(files, suffixes, lambda file: file)
    names = _index(files, suffixes, lambda file: PurePosixPath(file).name)
    found: dict[str, Entry] = {}
    unmatched = []
    for entry in entries:
        asked = entry.file if entry.file is not None else entry.id
        file = paths.get(asked) or names.get(asked)
        if file is None:
            unmatched.append(f"{asked} ({'several files' if asked in paths or asked in names else 'no file'})")
        elif file in found:
            raise UserError(f"the labels name {file} twice, as {asked} too", allowed="each once", do="mend the labels")
        else:
            found[file] = entry
    if unmatched and not ignore_unmatched:
        more = f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else ""
        raise UserError(
            f"the labels name {len(unmatched)} fields that are not in the folder: {', '.join(unmatched[:5])}{more}",
            allowed="ids, paths in the folder, or names of files that occur once",
            do="mend the labels, or pass --unmatched ignore to leave these out",
        )
    return found


def _index(files: list[str], suffixes: tuple[str, ...], name_of: Callable[[str], str]) -> dict[str, str | None]:
    """Files by what they may be called, with and without suffix; None where that is not unique."""
    found: dict[str, str | None] = {}
    for file in files:
        name = name_of(file)
        for called in {name, without_suffix(name, suffixes)}:
            found[called] = None if called in found else file
    return found


def without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """A file's name as an id."""
    ending = next((suffix for suffix in suffixes if name.endswith(suffix)), "")
    return name.removesuffix(ending)
