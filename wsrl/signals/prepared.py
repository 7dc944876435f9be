"""Sources written out: pictures as a folder of PNG files that reads back as the same signals, shapes as a table."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrl.durable import TEMPORARY, write_bytes
from wsrl.errors import SignalError, UserError
from wsrl.progress import ShowProgress, silent
from wsrl.signals.pictures.image import values_to_image
from wsrl.signals.source import Source

MARKER = ".wsrl-data.json"
INDEX = "index.csv"
PICTURE_COLUMNS = ("file", "id", "label", "split")
SHAPE_COLUMNS = ("id", "label", "split", "verdict", "reasons", "seconds", "num_faces", "num_parts", "watertight")


@dataclass(frozen=True, kw_only=True)
class PreparedPictures:
    """What :func:`write_pictures` wrote: the rows of the index, and (id, reason) of the signals left out."""

    rows: list[dict[str, str]]
    failures: list[tuple[str, str]]


def write_pictures(source: Source, out: Path, progress: ShowProgress = silent) -> PreparedPictures:
    """Write every signal as ``<split>/<class>/<id>.png``, and an index; what is there already is kept.

    Raises:
        UserError: The folder holds something else.
    """
    claim_prepared(out, source.description)
    rows, failures = [], []
    names = file_names(source)
    with progress("pictures written", len(source)) as shown:
        for index, (id, label, split) in enumerate(zip(source.ids, source.labels(), source.splits(), strict=True)):
            try:
                if not (out / names[index]).exists():
                    _write_picture(source[index], out / names[index])
                rows.append({"file": names[index], "id": id, "label": label or "", "split": split or ""})
            except SignalError as error:
                failures.append((id, str(error)))
            shown.advance(1)
    write_bytes(out / INDEX, _table(PICTURE_COLUMNS, rows))
    return PreparedPictures(rows=rows, failures=failures)


def prepare_shapes(source: Any, out: Path, processes: int | None = None, progress: ShowProgress = silent) -> list:
    """Prepare all shapes of a source in its cache, and write a table of how each came out.

    Args:
        source: A source of shapes.
        out: Folder of the table.
        processes: Processes that work at one time; None for one per core.
        progress: Shows the shapes.

    Returns:
        A record for each shape, in order.

    Raises:
        UserError: The folder holds something else.
    """
    claim_prepared(out, source.description)
    with progress("shapes prepared", len(source)) as shown:
        source.prepare(range(len(source)), processes or os.cpu_count() or 1, shown.advance)
    records = [source.record(index) for index in range(len(source))]
    rows = []
    for record, label, split in zip(records, source.labels(), source.splits(), strict=True):
        known = {name: f"{record.quality[name]:.6g}" for name in SHAPE_COLUMNS if name in record.quality}
        rows.append({"id": record.id, "label": label or "", "split": split or "", "verdict": record.verdict})
        rows[-1] |= {"reasons": "; ".join(record.reasons)} | known
    write_bytes(out / INDEX, _table(SHAPE_COLUMNS, rows))
    return records


def claim_prepared(out: Path, description: Mapping[str, Any]) -> None:
    """Make the folder ours, or see that an earlier run did with the same description of its source.

    Raises:
        UserError: The folder holds something else.
    """
    marker = out / MARKER
    text = json.dumps(description, indent=1, sort_keys=True)
    do = "give another folder with --out, or remove this one"
    if marker.is_file():
        if marker.read_text(encoding="utf-8") != text:
            raise UserError(f"{out} was prepared from another source or with other options", do=do)
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder", do=do)
    others = [path.name for path in out.iterdir() if not is_guest(path)] if out.is_dir() else []
    if others:
        raise UserError(f"{out} is not empty and was not made by this command (it has {min(others)})", do=do)
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(marker, text.encode())


def is_guest(path: Path) -> bool:
    """Whether a file may stand in a folder that is about to become ours: a README, raw downloads, a killed write."""
    return path.name == "README.md" or path.suffix in (".gz", TEMPORARY)


def default_folder(source: Source) -> Path:
    """Where a source is prepared where no folder is given."""
    return Path("data") / folder_name(source.name).replace("-", "_")


def file_names(source: Source) -> list[str]:
    """Relative path of each picture, ``<split>/<class>/<end of the id>.png``, unique also where case does not count."""
    names, taken = [], set()
    for id, label, split in zip(source.ids, source.labels(), source.splits(), strict=True):
        folder = "/".join(folder_name(part) for part in (split, label) if part is not None)
        stem = folder_name(id.rsplit("/", 1)[-1])
        name, copy = f"{folder}/{stem}.png".lstrip("/"), 1
        while name.lower() in taken:
            copy += 1
            name = f"{folder}/{stem}-{copy}.png".lstrip("/")
        taken.add(name.lower())
        names.append(name)
    return names


def folder_name(text: str) -> str:
    """A text as the name of a file on any system: ``T-shirt/top`` becomes ``T-shirt-top``."""
    return re.sub(r"[^\w &()+,.=@-]", "-", text).strip(" .") or "-"


def _write_picture(signal, path: Path) -> None:
    encoded = io.BytesIO()
    values_to_image(signal.values, signal.form.grid).save(encoded, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encoded.getvalue())


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    """Rows as comma-separated values under their header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
