"""Labels and splits of fields from a CSV or JSON file, as zoos and data sets publish them."""

import csv
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wsrl.errors import UserError
from wsrl.exchange.label_columns import COLUMNS, LABEL_FORMS, METRICS
from wsrl.exchange.label_records import check_text, read_records
from wsrl.signals.split_names import split_name

LABELS_FILE = "labels.csv"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a label file says of one field.

    Attributes:
        id: Its id; None takes the file's name.
        file: Its file in the folder; None finds it by the id.
        label: Class name, or None.
        split: Split name, or None; ``train``, ``val`` and ``test`` however they are spelled in the file.
        metrics: Numbers such as ``psnr``.
        location: Where it stands in the label file.
    """

    id: str | None = None
    file: str | None = None
    label: str | None = None
    split: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    location: str = field(default="", compare=False)

    @property
    def asked(self) -> str:
        """By what the field's file is found."""
        return self.file if self.file is not None else self.id


def read_labels(path: Path, encoding: str | None = None) -> list[Entry]:
    """Entries of a label file in its order; one may be there twice if it says the same.

    Args:
        path: The file.
        encoding: Its encoding; None is UTF-8, or what the mark at its beginning says.

    Raises:
        UserError: The file has none of the forms, says two things of a field, or is no text.
    """
    entries: list[Entry] = []
    seen: dict[str, Entry] = {}
    try:
        for location, record in read_records(path, encoding):
            # one that is there twice must say the same both times
            entry = _entry(location, record)
            keys = {entry.id, entry.file} - {None}
            others = [(key, seen[key]) for key in keys if key in seen]
            if any(other != entry for _, other in others):
                raise UserError(_contradiction(entry, *others[0]), allowed="each field once", do="mend the file")
            entries.append(entry)
            seen |= dict.fromkeys(keys, entry)
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        refusal = error if isinstance(error, UserError) else UserError(str(error))
        raise UserError(
            f"the labels {path}: {refusal.wrong}",
            allowed=refusal.allowed or LABEL_FORMS,
            do=refusal.do or "mend the file",
        ) from error
    return entries


def _contradiction(entry: Entry, key: str, other: Entry) -> str:
    mentions = [f"{one.location} (label {one.label}, split {one.split})" for one in (other, entry)]
    return f"they name {key!r} twice: {' and '.join(mentions)}"


def _entry(location: str, record: dict) -> Entry:
    texts = {name: _text(record.get(name), name, location) for name in COLUMNS}
    if texts["id"] is None and texts["file"] is None:
        raise UserError(f"{location}: the entry has neither id nor file")
    texts["split"] = split_name(texts["split"]) if texts["split"] is not None else None
    metrics = {}
    for name, value in record.items():
        if name.startswith(METRICS) and value not in (None, ""):
            try:
                metrics[name.removeprefix(METRICS)] = float(value)
            except (ValueError, TypeError) as error:
                raise UserError(f"{location}: {name} is {value!r:.60}, which is no number") from error
            check_text(name, METRICS, location)
    return Entry(**texts, metrics=metrics, location=location)


def _text(value: object, name: str, location: str) -> str | None:
    """A value as a text without spaces around it; None where there is none."""
    if isinstance(value, list | dict):
        raise UserError(f"{location}: the {name} is {value!r:.60}", allowed="one text or number for each field")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):  # pandas makes whole numbers real where one of a column is missing
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    check_text(text, name, location)
    return text or None


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
        Entries by file. An entry finds its file by the path, with or without its suffix, or else by the end of the
        path, as where a zoo was moved: of the file's if it is unique, of the entry's if the rest is a path here.

    Raises:
        UserError: An entry finds no file, or more than one, or two find the same and say different things.
    """
    # By the exact path, by the path without its suffix, or by an end of either that occurs once.
    exact = set(files)  # a name that is there as it is goes before one that differs in its suffix
    paths = _index(files, suffixes, lambda path: (path,))
    ends = _index(files, suffixes, _ends)
    assigned: dict[str, Entry] = {}
    unmatched = []
    for entry in entries:
        asked = _plain(entry.asked, suffixes)
        file = entry.asked if entry.asked in exact else paths.get(asked) or ends.get(asked)
        file = file or next(filter(None, map(paths.get, _ends(asked))), None)
        if file is None:
            unmatched.append(entry)
        elif file in assigned and _said(assigned[file]) != _said(entry):
            raise UserError(
                f"the labels name {file} twice, as {assigned[file].asked!r} and as {entry.asked!r}",
                allowed="each once",
                do="mend the labels",
            )
        else:
            assigned.setdefault(file, entry)
    # What is left may name files of a folder that was moved as a whole.
    unmatched = _moved(unmatched, ends, assigned, suffixes)
    if unmatched and not ignore_unmatched:
        raise _no_file(unmatched, ends, suffixes)
    return assigned


def _said(entry: Entry) -> tuple:
    """What an entry says, by whatever it names its field."""
    return entry.label, entry.split, dict(entry.metrics)


def _moved(entries: list[Entry], ends: dict, assigned: dict[str, Entry], suffixes: tuple[str, ...]) -> list[Entry]:
    """Add entries whose path differs from a file's by its beginning alone, if for all of them by the same one.

    Returns:
        The entries that are still without a file.
    """
    matched, roots = {}, set()
    for entry in entries:
        asked = _plain(entry.asked, suffixes)
        end = next((end for end in _ends(asked) if ends.get(end)), None)
        whole = asked.startswith("/") or asked[1:3] == ":/" or (end is not None and "/" in end)
        if end is not None and whole and ends[end] not in assigned and ends[end] not in matched:
            matched[ends[end]] = entry
            roots.add((asked.removesuffix(end), _plain(ends[end], suffixes).removesuffix(end)))
    if len(matched) < len(entries) or len(roots) != 1:
        return entries
    assigned |= matched
    return []


def _no_file(unmatched: list[Entry], ends: dict, suffixes: tuple[str, ...]) -> UserError:
    shown = [
        f"{entry.asked if entry.asked.isprintable() else repr(entry.asked)} "
        f"({'several files' if _plain(entry.asked, suffixes) in ends else 'no file'})"
        for entry in unmatched[:5]
    ]
    more = f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else ""
    return UserError(
        f"the labels name {len(unmatched)} fields that are not in the folder: {', '.join(shown)}{more}",
        allowed="ids, paths in the folder, or names or ends of paths that occur once",
        do="mend the labels, or pass --unmatched ignore to leave these out",
    )


def _plain(path: str, suffixes: tuple[str, ...]) -> str:
    """A path as it is compared: without ``./``, with ``/``, one form of each accent, its suffix left out."""
    parts = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    kept = [part for index, part in enumerate(parts) if part not in ("", ".") or (index == 0 and part == "")]
    return without_suffix("/".join(kept), suffixes)


def _ends(path: str) -> Iterator[str]:
    """The path and what is left of it without its first folders, the longest first."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _index(
    files: list[str], suffixes: tuple[str, ...], names_of: Callable[[str], Iterator[str] | tuple[str]]
) -> dict[str, str | None]:
    """Files by what they may be called; None where that is not unique."""
    files_by_name: dict[str, str | None] = {}
    for file in files:
        for called in names_of(_plain(file, suffixes)):
            files_by_name[called] = None if called in files_by_name else file
    return files_by_name


def without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """A file's name as an id; the case of its suffix does not matter."""
    ending = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(ending)]


def id_of(entry: Entry | None, file: str, suffixes: tuple[str, ...]) -> str:
    """The id of a field: what the labels call it, unless that is a path of elsewhere or the name of a file.

    Args:
        entry: What the labels say of it, or None.
        file: Its path in the folder.
        suffixes: Suffixes of files that are no part of an id.
    """
    ours = without_suffix(file, suffixes)
    if entry is None or entry.id is None:
        return ours
    return entry.id if entry.file is not None or entry.id in (ours, PurePosixPath(ours).name) else ours
