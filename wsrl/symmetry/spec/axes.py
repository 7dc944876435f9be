"""How permutations act on one axis of a tensor: not at all, whole, on factors of it, or on consecutive parts of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from wsrl.errors import UserError

Factor = str | int
"""The name of a permutation, or the size of something that stays fixed."""
Within = Mapping[str, tuple[str, ...]]
"""For permutations that act inside the elements of others: those others."""


@dataclass(frozen=True)
class Product:
    """An axis that is several axes in one, in row-major order, such as the channels and positions of a flattened map.

    Attributes:
        factors: Names of permutations, and sizes of factors that stay fixed.
    """

    factors: tuple[Factor, ...]

    def __post_init__(self):
        object.__setattr__(self, "factors", tuple(self.factors))

    def __str__(self):
        return " x ".join(map(str, self.factors))


@dataclass(frozen=True)
class Concat:
    """An axis of consecutive parts, such as the gates of a recurrent cell.

    Attributes:
        parts: For each part the name of a permutation, the size of a part that stays fixed, or a product.
    """

    parts: tuple[Factor | Product, ...]

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))

    def __str__(self):
        return "[" + " | ".join(map(str, self.parts)) + "]"


Axis = None | str | int | Product | Concat


def parts_of(axis: Axis) -> tuple[Factor | Product | None, ...]:
    """Consecutive parts of an axis; an axis that is whole is one part."""
    return axis.parts if isinstance(axis, Concat) else (axis,)


def factors_of(part: Factor | Product | None) -> tuple[Factor | None, ...]:
    """Factors of a part in row-major order."""
    return part.factors if isinstance(part, Product) else (part,)


def names_in(axis: Axis) -> list[str]:
    """Permutations that act on an axis, in order, each as often as it stands there."""
    return [factor for part in parts_of(axis) for factor in factors_of(part) if isinstance(factor, str)]


def part_size(part: Factor | Product | None, sizes: Mapping[str, int]) -> int | None:
    """Length of a part; None where only a tensor could tell."""
    if part is None:
        return None
    return prod(factor if isinstance(factor, int) else sizes[factor] for factor in factors_of(part))


def axis_size(axis: Axis, sizes: Mapping[str, int]) -> int | None:
    """Length of an axis; None where only a tensor could tell."""
    lengths = [part_size(part, sizes) for part in parts_of(axis)]
    return None if None in lengths else sum(lengths)


def axis_to_json(axis: Axis) -> object:
    """Plain value of an axis; :func:`axis_from_json` gives an equal one."""
    if isinstance(axis, Product):
        return {"product": list(axis.factors)}
    if isinstance(axis, Concat):
        return {"concat": [axis_to_json(part) for part in axis.parts]}
    return axis


def axis_from_json(data: object) -> Axis:
    """The axis of :func:`axis_to_json`."""
    if isinstance(data, dict) and set(data) == {"product"}:
        return Product(tuple(data["product"]))
    if isinstance(data, dict) and set(data) == {"concat"}:
        return Concat(tuple(axis_from_json(part) for part in data["concat"]))
    if data is None or isinstance(data, (str, int)):
        return data
    raise UserError(f"{data!r} describes no axis", allowed='null, a name, a size, {"product": []}, {"concat": []}')


def check_axis(axis: Axis, sizes: Mapping[str, int], location: str) -> None:
    """Refuse an axis that is no axis or that speaks of unknown permutations.

    Args:
        axis: The axis.
        sizes: Known permutations.
        location: Where it stands, for the message.

    Raises:
        UserError: The kind of something is wrong, or a name is unknown.
    """
    for part in parts_of(axis):
        # every factor is a size or a known name; None stands for a whole axis only
        factors = factors_of(part)
        allowed = (str, int) if isinstance(part, Product) or isinstance(axis, Concat) else (str, int, type(None))
        for factor in factors:
            if not isinstance(factor, allowed) or isinstance(factor, bool):
                raise UserError(
                    f"{location} holds {factor!r}",
                    allowed="names of permutations and sizes of fixed factors in Product and Concat; None for an axis",
                    do=f"mend {location}",
                )
            if isinstance(factor, str) and factor not in sizes:
                raise UserError(
                    f"{location} speaks of the permutation {factor!r}, which has no size",
                    allowed=", ".join(sizes) or "none, for sizes is empty",
                    do=f"add sizes[{factor!r}]",
                )
        if not factors:
            raise UserError(f"{location} is a product of nothing", allowed="at least one factor", do=f"mend {location}")
    if isinstance(axis, Concat) and not axis.parts:
        raise UserError(f"{location} is made of no parts", allowed="at least one part", do=f"mend {location}")
