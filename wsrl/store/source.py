"""The signals that a store was made from, opened again."""

from wsrl.errors import UserError
from wsrl.signals import open_source, source_names
from wsrl.signals.source import Source
from wsrl.store.reader import WeightStore


def open_store_source(store: WeightStore, data: str | None) -> Source:
    """The source that a store was built from.

    Args:
        store: The store.
        data: What the user gave; None where it is a named source, which the manifest knows.

    Raises:
        UserError: The store was built from a folder or file, which has to be given.
    """
    source = find_store_source(store, data)
    if source is None:
        name = store.manifest["source"].get("name")
        raise UserError(
            f"the store {store.directory} was built from {name!r}, which is no named source",
            allowed="the folder or file that it was built from",
            do="give it with --data",
        )
    return source


def find_store_source(store: WeightStore, data: str | None) -> Source | None:
    """The source of a store, or None where it was a folder or file and none is given."""
    described = store.manifest["source"]
    name = data or described.get("name")
    if data is None and name not in source_names():
        return None
    given = {key: value for key, value in described.get("options", {}).items() if value is not None}
    return open_source(name, **given)
