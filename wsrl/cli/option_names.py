"""What the commands that score, sample and align share: options as typed configurations, in messages too."""

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from wsrl.errors import UserError


def picked(config: type, options, **others):
    """A dataclass of the library from the options of its fields' names, and others; the rest keeps its defaults."""
    names = [field.name for field in dataclasses.fields(config) if field.name in options]
    return config(**{name: options[name] for name in names} | others)


@contextmanager
def options_in_messages(names: Collection[str]) -> Iterator[None]:
    """Let messages that begin with the name of a field name the option that the user typed.

    Args:
        names: Names of the fields that are options of the command.
    """
    try:
        yield
    except UserError as error:
        name = error.wrong.partition(" is ")[0]
        if name not in names:
            raise
        option = "--" + name.replace("_", "-")
        do = error.do.replace(f"another {name}", f"another {option}")
        raise UserError(option + error.wrong.removeprefix(name), allowed=error.allowed, do=do) from error
