"""The signals that a store was made from, opened again."""

from wsrl.errors import UserError
from wsrl.signals import open_source, source_names
from wsrl.signals.source import Source
from wsrl.store.reader import WeightStore


def open_store_source(store: WeightStore, data: str | None = None) -> Source:
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


def find_store_source(store: WeightStore, data: str | None = None) -> Source | None:
    """The source of a store, or None where it was a folder or file and none is given."""
    if data is None and not is_named(store.manifest):
        return None
    name = data or store.manifest["source"]["name"]
    return open_source(name, **source_options(store.manifest))


def source_options(manifest: dict) -> dict:
    """The options with which the source of a store was opened, None left out; paths are not among them."""
    return {key: value for key, value in manifest["source"].get("options", {}).items() if value is not None}


def is_named(manifest: dict) -> bool:
    """Whether a store was made from a source that its name alone opens."""
    return manifest["source"].get("name") in source_names()
