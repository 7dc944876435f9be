"""What the columns of label files are called, and which forms such files have."""

from collections.abc import Sequence

from wsrl.errors import UserError

COLUMNS = {
    "id": ("id", "name", "key"),
    "file": ("file", "filename", "file_name", "path", "filepath", "file_path"),
    "label": ("label", "class", "category", "labels", "class_name", "target"),
    "split": ("split", "subset", "set", "partition"),
}
METRICS = "metrics."
LABEL_FORMS = (
    "CSV with a header: id or file, label, and if there are any split and metrics.<name>; "
    "JSON: {id: label}, {split: [ids]}, {split: {id: label}}, {split: {path: [...], label: [...]}}, "
    "{id: {label:, split:}}, {id: [...], label: [...]}, or a list or lines of records"
)


def known_column(name: object) -> str | None:
    """Our name of a column; None where it says nothing to us."""
    plain = str(name).strip()
    if plain.startswith(METRICS):
        return plain
    return next((ours for ours, theirs in COLUMNS.items() if plain.lower() in theirs), None)


def column_positions(names: Sequence) -> dict[str, int]:
    """Position of each of our columns; of several that mean the same the one that we name first.

    Raises:
        UserError: A column is there twice.
    """
    plain, positions = [str(name).strip().lower() for name in names], {}
    for position, name in enumerate(names):
        ours = known_column(name)
        if ours is not None and plain.count(plain[position]) > 1:
            raise UserError(f"it has the column {name} twice")
        order = COLUMNS.get(ours, ())
        if ours is not None and (
            ours not in positions or order.index(plain[position]) < order.index(plain[positions[ours]])
        ):
            positions[ours] = position
    return positions
