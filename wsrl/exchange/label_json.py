"""The records of a label file in JSON: lists, lines or columns of them, objects by id, and objects by split."""

import json
from collections.abc import Iterator

from wsrl.errors import UserError
from wsrl.exchange.label_columns import column_positions, known_column
from wsrl.signals.split_names import known_split

Record = tuple[str, dict]
# Keys under which programs keep the list of records in a file.
_WRAPPERS = ("data", "records", "items", "rows", "samples", "examples")


def json_records(text: str) -> Iterator[Record]:
    """Place and record of each field that a JSON text names.

    Raises:
        UserError: It has none of the forms.
        ValueError: It is damaged.
    """
    try:
        content = _parse(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or "\n" not in text[: error.pos]:
            raise
        yield from json_lines(text)  # lines of records under the name of a JSON file
        return
    if isinstance(content, list):
        yield from _of_list(content, {}, "")
    elif isinstance(content, dict):
        yield from _of_object(content)
    else:
        raise UserError(f"it is {content!r:.60}")


def _parse(text: str) -> object:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, object]]) -> dict:
    """An object whose keys are there once, or say the same; Python would keep the last."""
    unique: dict = {}
    for key, value in pairs:
        if key in unique and unique[key] != value:
            raise UserError(f"it has the key {key!r} twice, with {unique[key]!r:.60} and {value!r:.60}")
        unique[key] = value
    return unique


def json_lines(text: str) -> Iterator[Record]:
    """Place and record of each line that is not empty."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                record = _parse(line)
            except ValueError as error:
                raise UserError(f"line {number}: {getattr(error, 'wrong', error)}") from error
            yield from _of_list([record], {}, f"line {number}, ")


def _of_object(content: dict) -> Iterator[Record]:
    """Records of an object that stands for the whole file."""
    names = {known_column(key) for key in content}
    wrapped = [key for key in content if key in _WRAPPERS and isinstance(content[key], list)]
    if names & {"id", "file"} and all(_is_column(v) for k, v in content.items() if known_column(k)):
        yield from _of_columns(content, {}, "")
    elif names & {"id", "file"} and not any(map(_is_column, content.values())):
        yield from _of_list([content], {}, "")
    elif wrapped and isinstance(content.get("columns"), list):  # pandas, orient="split"
        yield from _of_list([dict(zip(content["columns"], row)) for row in content[wrapped[0]]], {}, "")
    elif wrapped:
        yield from _of_list(content[wrapped[0]], {}, "")
    elif any(known_split(key) and _is_column(value) for key, value in content.items()):
        for key, value in content.items():  # what is neither list nor object says something of the whole file
            yield from _of_split(value, {"split": key}, f"{key}: ") if _is_column(value) else ()
    elif any(isinstance(value, list) for value in content.values()):
        raise UserError(f"its lists stand under {', '.join(map(repr, content))[:200]}, which are no splits")
    else:
        yield from _of_ids(content, {}, "")


def _of_split(content: list | dict, defaults: dict, location: str) -> Iterator[Record]:
    """Records of one split: ids, records, columns, labels by id, or ids by label."""
    if isinstance(content, list):
        yield from _of_list(content, defaults, location)
    elif {known_column(key) for key in content} & {"id", "file"} and any(map(_is_column, content.values())):
        yield from _of_columns(content, defaults, location)
    elif content and all(isinstance(value, list) for value in content.values()):
        for label, ids in content.items():
            yield from _of_list(ids, defaults | {"label": label}, f"{location}{label}: ")
    else:
        yield from _of_ids(content, defaults, location)


def _of_ids(content: dict, defaults: dict, location: str) -> Iterator[Record]:
    """Records of an object whose keys are ids and whose values are labels, or records."""
    for key, value in content.items():
        known = _known(value) if isinstance(value, dict) else {"label": value}
        if not known:
            raise UserError(f"{location}{key!r} has {', '.join(map(repr, value))[:200] or 'nothing'}")
        yield f"{location}{key!r}", defaults | {"id": key} | known


def _of_list(content: list, defaults: dict, location: str) -> Iterator[Record]:
    """Records of a list of records, of pairs of id and label, or, inside a split, of ids."""
    for number, item in enumerate(content, start=1):
        where = f"{location}entry {number}"
        if isinstance(item, dict):
            yield where, defaults | _known(item)
        elif isinstance(item, list) and len(item) == 2 and not any(map(_is_column, item)):
            yield where, defaults | {"id": item[0], "label": item[1]}
        elif defaults and isinstance(item, str | int):
            yield where, defaults | {"id": item}
        else:
            raise UserError(f"{where} is {item!r:.60}")


def _of_columns(content: dict, defaults: dict, location: str) -> Iterator[Record]:
    """Records of columns of equal length; pandas writes a column as an object by the index."""
    names = list(content)
    columns = {ours: content[names[position]] for ours, position in column_positions(names).items()}
    sizes = {name: len(column) if _is_column(column) else None for name, column in columns.items()}
    if len(set(sizes.values())) != 1:
        lengths = ", ".join(f"{name} {size or 'no list'}" for name, size in sizes.items())
        raise UserError(f"{location}its columns differ in length: {lengths}")
    keys = list(next(iter(columns.values())))
    by_index = [isinstance(column, dict) for column in columns.values()]
    if any(by_index) and not (all(by_index) and all(list(column) == keys for column in columns.values())):
        raise UserError(f"{location}its columns have different indices")
    for number, row in enumerate(zip(*(c.values() if isinstance(c, dict) else c for c in columns.values())), start=1):
        yield f"{location}entry {number}", defaults | dict(zip(columns, row))


def _known(record: dict) -> dict:
    names = list(record)
    return {ours: record[names[position]] for ours, position in column_positions(names).items()}


def _is_column(value: object) -> bool:
    return isinstance(value, list | dict)
