"""Options of encoders: what every kind has, and the checks that turn plain values into a configuration."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from wsrl.errors import UserError

NORMALISATIONS = ("entry", "tensor")

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Options that all encoders share.

    Attributes:
        normalisation: ``entry`` gives every weight its own mean and deviation, which suits fields of one shared start;
            ``tensor`` one per tensor and per index of its fixed axes, so that permuted fields stay permuted fields.
        dropout: Share of hidden units that is dropped in training.

    Raises:
        UserError: A value is out of range.
    """

    normalisation: str = "tensor"
    dropout: float = 0.0

    def __post_init__(self):
        check(self, "normalisation", self.normalisation in NORMALISATIONS, " or ".join(NORMALISATIONS))
        check(self, "dropout", 0 <= self.dropout < 1, "0 up to, not including, 1")


def check(config: Any, name: str, fits: bool, allowed: str) -> None:
    """Refuse the value of an option.

    Args:
        config: The configuration.
        name: Name of the option.
        fits: Whether its value is allowed.
        allowed: What is allowed, for the message.

    Raises:
        UserError: It does not fit.
    """
    if not fits:
        value = getattr(config, name)
        raise UserError(f"the encoder option {name} is {value!r}", allowed=allowed, do=f"choose another {name}")


def check_sizes(config: Any, *names: str) -> None:
    """Refuse options that are not whole numbers from 1 on."""
    for name in names:
        check(config, name, getattr(config, name) >= 1, "1 or more")


def make_config(config_class: type[Config], options: Mapping[str, Any]) -> Config:
    """A configuration from plain values such as YAML gives.

    Args:
        config_class: Dataclass whose fields all have defaults; the defaults tell the types.
        options: Values by name; whole numbers stand for numbers, lists for tuples.

    Returns:
        The configuration.

    Raises:
        UserError: A name is unknown, or a value is of another type or out of range.
    """
    known = {entry.name: entry.default for entry in fields(config_class)}
    assert MISSING not in known.values(), "every option of an encoder has a default"
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UserError(
            f"unknown encoder option {unknown[0]!r}",
            allowed=", ".join(known),
            do="compare with the options of this kind of encoder",
        )
    return config_class(**{name: _typed(name, value, known[name]) for name, value in options.items()})


def _typed(name: str, value: Any, default: Any) -> Any:
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
    raise UserError(f"the encoder option {name} is {value!r}", allowed=wanted, do=f"choose another {name}")
