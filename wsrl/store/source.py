"""The signals that a store was made from, opened again."""

from wsrl.errors import UserError
from wsrl.signals import open_source, source_names
from wsrl.signals.source import Source
from wsrl.store.reader import WeightStore
from wsrl.store.schema import source_name, source_options


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
        name = source_name(store.manifest)
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
    return open_source(data or source_name(store.manifest), **source_options(store.manifest))


def is_named(manifest: dict) -> bool:
    """Whether a store was made from a source that its name alone opens."""
    return source_name(manifest) in source_names()
