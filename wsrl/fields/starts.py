"""Starts of a fit that lie a distance apart: how much of the noise of one start is left in the other."""

import math

import torch
from torch import Tensor

from wsrl.fields.representation import Representation
from wsrl.options import between, check_values


def start_apart(
    representation: Representation, start: dict[str, Tensor], distance: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """A start that keeps a share of the noise of another one, ``i2 = sqrt(1 - l^2) i1 + l eps``.

    ``eps`` is a fresh start of the representation, so every tensor keeps its standard deviation at every distance. What
    does not vary between starts (frozen entries, the zeros of ``B``) stays as it is. The starts of the literal product
    ``W * (B A)`` lie about a constant: there the noise of the logarithm of ``A`` is mixed, and the columns of ``A`` are
    normalised again, since otherwise the second start would not be the base field.

    Args:
        representation: What the weights are.
        start: The first start ``i1``, as :meth:`Representation.initial` gives it.
        distance: The distance ``l``: 0 for the same start, 1 for an independent one.
        generator: Source of the fresh start.

    Returns:
        The second start ``i2``, one tensor ``shape`` per entry of the layout.

    Raises:
        UserError: The distance is not in [0, 1].

    Source: arXiv 2512.01759, structure experiment.
    """
    check_values({"distance": distance}, distance=between(0, 1))
    fresh, kept = representation.initial(generator), math.sqrt(1 - distance**2)
    mixed = {}
    for spec in representation.layout:
        first, second = start[spec.name], fresh[spec.name]
        if _is_about_a_constant(representation):
            both = first.pow(kept) * second.pow(distance)
            both = both * (first.sum(0) / both.sum(0))
        else:
            both = kept * first + distance * second
        mixed[spec.name] = torch.where(spec.trainable(), both, first)
    return mixed


def _is_about_a_constant(representation: Representation) -> bool:
    config = representation.config
    return config.kind.startswith("mlora") and config.form == "product"
