"""Options that are checked when they are made: what a value may be stands beside its default.

@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    epochs: int = option(30, at_least(1))
    schedule: str = option("cosine", one_of("cosine", "constant"))

    def __post_init__(self):
        check(self, "training.")
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from wsrl.errors import UserError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Allowed:
    """The values that an option may have.

    Attributes:
        text: What they are, for a message.
        fits: Whether a value is one of them.
    """

    text: str
    fits: Callable[[Any], bool]


SHARE = Allowed("0 up to, not including, 1", lambda value: 0 <= value < 1)
POSITIVE = Allowed("more than 0", lambda value: value > 0)


def at_least(least: float) -> Allowed:
    """Values from ``least`` on."""
    return Allowed(f"{least} or more", lambda value: value >= least)


def between(low: float, high: float) -> Allowed:
    """Values from ``low`` to ``high``, both included."""
    return Allowed(f"{low} to {high}", lambda value: low <= value <= high)


def multiple_of(divisor: int, name: str) -> Allowed:
    """Whole multiples of another option, which ``name`` says."""
    return Allowed(f"a multiple of {name}, which is {divisor}", lambda value: divisor > 0 and value % divisor == 0)


def one_of(*choices: Any) -> Allowed:
    """One of some values."""
    return Allowed(", ".join(map(str, choices)), lambda value: value in choices)


def every(allowed: Allowed) -> Allowed:
    """Lists all of whose values fit."""
    return Allowed(f"a list of values of {allowed.text}", lambda values: all(map(allowed.fits, values)))


def option(default: Any, allowed: Allowed) -> Any:
    """A field of a dataclass with a default and the values that it may have; None where it is the default as well."""
    return field(default=default, metadata={"allowed": allowed})


def check(options: Any, prefix: str = "") -> None:
    """Refuse a dataclass of which a field does not fit; a class keeps the rules of its bases.

    Args:
        options: An instance whose fields are made by :func:`option`.
        prefix: What stands before the name of an option in a message, such as ``fit.``.

    Raises:
        UserError: Names the option, its value and what is allowed.
    """
    rules = {}
    for kind in reversed(type(options).__mro__):
        own = kind.__dict__.get("__dataclass_fields__", {})
        rules |= {name: each.metadata["allowed"] for name, each in own.items() if "allowed" in each.metadata}
    check_values({name: getattr(options, name) for name in rules}, prefix, **rules)


def check_values(values: Mapping[str, Any], prefix: str = "", /, **rules: Allowed) -> None:
    """Refuse values that do not fit, for options that are no dataclass; None always fits.

    Args:
        values: Values by name, such as ``locals()``; those without a rule may be anything.
        prefix: What stands before the name of an option in a message.
        **rules: What the value of each name may be.

    Raises:
        UserError: Names the option, its value and what is allowed.
    """
    for name, allowed in rules.items():
        value = values[name]
        if value is not None and not allowed.fits(value):
            wrong = f"{prefix}{name} is {value!r}"
            raise UserError(wrong, allowed=allowed.text, do=f"choose another {prefix}{name}")


def from_plain(config_class: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """A configuration from plain values such as YAML gives.

    Args:
        config_class: Dataclass whose fields all have defaults; the defaults tell the types.
        values: Values by name; whole numbers stand for numbers, lists for tuples.
        prefix: What stands before the name of an option in a message.

    Returns:
        The configuration.

    Raises:
        UserError: A name is unknown, or a value is of another type or out of range.
    """
    known = {entry.name: entry.default for entry in fields(config_class)}
    assert MISSING not in known.values(), "every option has a default"
    unknown = [name for name in values if name not in known]
    if unknown:
        wrong = f"unknown option {unknown[0]!r}"
        raise UserError(wrong, allowed=", ".join(known), do="compare with the options of this kind")
    return config_class(**{name: _typed(name, value, known[name], prefix) for name, value in values.items()})


def _typed(name: str, value: Any, default: Any, prefix: str) -> Any:
    """A plain value as the type of a default."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, tuple):
        kinds, wanted = (int, "a list of whole numbers") if default else (int | float, "a list of numbers")
        if isinstance(value, list | tuple) and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value):
            return tuple(value)
    elif isinstance(default, float):
        if is_whole or isinstance(value, float):
            return float(value)
        wanted = "a number"
    else:
        if type(value) is type(default):
            return value
        wanted = {bool: "true or false", int: "a whole number", str: "a text"}[type(default)]
    raise UserError(f"{prefix}{name} is {value!r}", allowed=wanted, do=f"choose another {prefix}{name}")
