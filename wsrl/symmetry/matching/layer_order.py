"""The order of the layers of a plain stack, from their names and sizes; one that would be a guess is not found."""

import re
from collections.abc import Callable, Sequence

MAX_STEPS = 100_000
"""Layers tried until an order counts as unclear."""

Fits = Callable[[str | None, str, int], bool]


def layer_orders(names: Sequence[str], fits: Fits) -> list[list[str]]:
    """Orders in which layers can follow each other; only one that is alone is clear.

    Numbers at the same place of names that are alike before it tell which of two comes first (``net.2.linear`` before
    ``net.10``); words don't, whatever their place in the alphabet. Sizes say which layer fits behind which. Where they
    contradict the numbers, sizes alone decide.

    Args:
        names: Names of the layers.
        fits: Whether a layer can stand at a place, from the layer before it (None at the start), its name and its
            place.

    Returns:
        None, one, or the first two of several.
    """
    return possible_orders(names, fits, precedes_by_number) or possible_orders(names, fits, lambda first, second: False)


def possible_orders(names: Sequence[str], fits: Fits, before: Callable[[str, str], bool]) -> list[list[str]]:
    """Up to two orders in which layers fit behind each other.

    Args:
        names: Names of the layers.
        fits: As in :func:`layer_orders`.
        before: Whether the first of two layers must come before the second.
    """
    earlier = {name: {other for other in names if before(other, name)} for name in names}
    orders: list[list[str]] = []
    chain: list[str] = []
    steps = 0

    def extend(left: list[str]) -> None:
        nonlocal steps
        if not left:
            orders.append(list(chain))
        for name in left:
            if len(orders) > 1 or steps > MAX_STEPS:
                return
            if earlier[name].isdisjoint(left) and fits(chain[-1] if chain else None, name, len(chain)):
                steps += 1
                chain.append(name)
                extend([other for other in left if other != name])
                chain.pop()

    extend(sorted(names, key=natural))
    if steps > MAX_STEPS:  # nobody has seen that no other order fits
        orders *= 2
    return orders[:2]


def precedes_by_number(first: str, second: str) -> bool:
    """Whether numbers in two names say that the first comes before the second."""
    for a, b in zip(natural(first), natural(second)):
        if a != b:
            return a[0] == b[0] == 0 and a < b
    return False


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``net.10`` after ``net.9``: the numbers of a name, and the text between them."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
