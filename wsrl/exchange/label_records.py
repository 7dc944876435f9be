"""The records of a label file, whatever its form.

A *record* maps our names of columns, ``id``, ``file``, ``label``, ``split`` and ``metrics.<name>``, to values as the
file has them; a *place* says where in the file a record stands.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from wsrl.errors import UserError, printable
from wsrl.exchange.label_columns import column_positions
from wsrl.exchange.label_json import json_lines, json_records

DELIMITERS = ",;\t|"
# What a file without an encoding of its own may begin with, the longer marks first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DAMAGED = re.compile("[\ud800-\udfff]")


def read_records(path: Path, encoding: str | None = None) -> Iterator[tuple[str, dict]]:
    """Place and record of each field that a label file names, in its order.

    Args:
        path: The file; ``.json``, ``.jsonl`` and ``.ndjson``, or what begins with a bracket, is JSON, others are CSV.
        encoding: Its encoding; None is UTF-8, or what the mark at its beginning says.

    Raises:
        UserError: It is no text, or has none of the forms.
        ValueError: It is damaged JSON.
    """
    text = decode_text(path.read_bytes(), encoding)
    ending = path.suffix.lower()
    if ending not in (".jsonl", ".ndjson", ".json") and text.lstrip()[:1] not in ("{", "["):
        yield from _csv_records(text, "\t" if ending in (".tsv", ".tab") else ",")
        return
    if damaged := _DAMAGED.search(text):
        raise _no_utf8(f"line {text.count(chr(10), 0, damaged.start()) + 1}")
    yield from json_lines(text) if ending in (".jsonl", ".ndjson") else json_records(text)


def decode_text(data: bytes, encoding: str | None = None) -> str:
    """The text of a file; bytes that are no UTF-8 become lone surrogates, as in the names of files.

    Raises:
        UserError: It has another encoding than the one given, or is no text.
    """
    encoding = encoding or next((name for mark, name in _MARKS if data.startswith(mark)), None)
    try:
        if encoding is not None:
            return data.decode(encoding)
    except (LookupError, UnicodeError) as error:
        wrong = f"it cannot be read as {encoding} ({error})"
        raise UserError(wrong, allowed="the encoding it was saved in", do="mend --encoding") from error
    if b"\0" in data:
        raise UserError("it holds zero bytes: no text, or UTF-16 without a mark", do="pass --encoding utf-16-le")
    return data.decode("utf-8", "surrogateescape")


def _no_utf8(location: str, what: str = "") -> UserError:
    return UserError(
        f"{location} holds bytes that are no UTF-8{what}",
        allowed="UTF-8, or UTF-16 with a mark at its beginning",
        do="save it as UTF-8, or say what it is, such as --encoding latin-1",
    )


def check_text(text: str, name: str, location: str) -> None:
    """Refuse a text that cannot be stored as UTF-8; ids and files may be names of files, which can be any bytes.

    Args:
        text: The text.
        name: Its column.
        location: Where it stands, for the message.

    Raises:
        UserError: It holds bytes that are no UTF-8, or half a character.
    """
    damaged = [c for c in _DAMAGED.findall(text) if name not in ("id", "file") or not "\udc80" <= c <= "\udcff"]
    if damaged:
        raise _no_utf8(location, f": the {name} {printable(text)}")


def _csv_records(text: str, usual: str) -> Iterator[tuple[str, dict]]:
    # Excel may say the separator in a line of its own; otherwise it is the one under which the header says most.
    stated = re.match(r"sep=(.)\r?\n", text)
    text, skipped = (text[stated.end() :], 1) if stated else (text, 0)
    delimiter = (
        stated[1]
        if stated
        else max((usual, *DELIMITERS), key=lambda one: len(column_positions(next(_rows(text, one), []))))
    )
    rows = _rows(text, delimiter)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        positions = column_positions(header)
        if not positions.keys() & {"id", "file"} and header and not header[0]:
            positions["id"] = 0  # pandas writes the index under no name
        if not positions.keys() & {"id", "file"}:
            raise UserError(f"its header is {', '.join(header) or 'missing'}")
        line = rows.line_num
        for row in rows:
            location, line = f"line {line + 1 + skipped}", rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{location} has another number of columns than the header: {len(row)}, not {len(header)}"
                )
            yield location, {ours: row[position].strip() for ours, position in positions.items()}
    except csv.Error as error:
        raise UserError(f"line {rows.line_num + skipped}: {error}") from error


def _rows(text: str, delimiter: str):
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
