"""Held axes told apart: one piece, and one permutation, for each element of an axis that something acts within.

Letters: L leading axes, C trailing axes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.spec.cutting import Piece
from wsrl.symmetry.spec.single_axis import PlainSpec

MOST = 256
"""Largest number of elements of held axes of one tensor that are told apart."""


def unrolled_spec(pieces: Sequence[Piece], within: Mapping[str, tuple[str, ...]], held: Mapping[str, int]) -> PlainSpec:
    """The spec of pieces of which held axes are gone.

    Args:
        pieces: Pieces of all tensors.
        within: What acts within what.
        held: Held axes and their lengths.

    Raises:
        UserError: A piece has more held elements than are told apart.
    """
    axes, shapes, parents = {}, {}, {}
    for piece in pieces:
        places = [place for place, name in enumerate(piece.axes) if name in held]
        if prod(piece.shape[place] for place in places) > MOST:
            raise UserError(
                f"{piece.name} holds {prod(piece.shape[place] for place in places)} stacked networks",
                allowed=f"at most {MOST}, each with permutations of its own",
                do="encode the networks of the stack as separate fields, or hold their hidden axes with fixed=(...)",
            )
        kept = [place for place in range(len(piece.axes)) if place not in places]
        for name, index in _elements(piece, held):
            axes[name] = tuple(_renamed(piece.axes[place], within, index) for place in kept)
            shapes[name] = tuple(piece.shape[place] for place in kept)
            for own in [piece.axes[place] for place in kept if piece.axes[place] is not None]:
                others = tuple(_renamed(p, within, index) for p in within.get(own, ()) if p not in held)
                parents[_renamed(own, within, index)] = others
    return PlainSpec(axes, shapes, {name: others for name, others in parents.items() if others})


def _elements(piece: Piece, held: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Names of what a piece is told apart into, each with the place along every held axis."""
    places = [place for place, name in enumerate(piece.axes) if name in held]
    for numbers in product(*(range(piece.shape[place]) for place in places)):
        index = {piece.axes[place]: number for place, number in zip(places, numbers)}
        text = ", ".join(f"{name}={number}" for name, number in index.items())
        yield (f"{piece.name}[{text}]" if text else piece.name), index


def _renamed(name: str | None, within: Mapping[str, tuple[str, ...]], index: Mapping[str, int]) -> str | None:
    """The permutation that stands for another at some place along the held axes that it acts within."""
    own = [parent for parent in within.get(name, ()) if parent in index]
    return f"{name}[{', '.join(f'{parent}={index[parent]}' for parent in own)}]" if own else name


def unroll(part: Tensor, piece: Piece, held: Mapping[str, int], leading: int) -> dict[str, Tensor]:
    """What a piece ``(L..., *shape, C...)`` is told apart into, without its held axes; views."""
    places = [place for place, name in enumerate(piece.axes) if name in held]
    found = {}
    for name, index in _elements(piece, held):
        element = part
        for place in reversed(places):
            element = element.select(leading + place, index[piece.axes[place]])
        found[name] = element
    return found


def rolled(
    parts: Mapping[str, Tensor], pieces: Sequence[Piece], held: Mapping[str, int], leading: int
) -> dict[str, Tensor]:
    """The pieces of which :func:`unroll` told elements apart; those of which one is missing are left out."""
    found = {}
    for piece in pieces:
        names = [name for name, _ in _elements(piece, held)]
        places = [place for place, name in enumerate(piece.axes) if name in held]
        if not all(name in parts for name in names):
            continue
        if not places:
            found[piece.name] = parts[piece.name]
            continue
        stacked = torch.stack([parts[name] for name in names])  # (elements, L..., *kept shape, C...)
        stacked = stacked.unflatten(0, [piece.shape[place] for place in places])
        for k, place in enumerate(places):  # each goes to its place, in order; those behind it stay in front
            stacked = stacked.movedim(0, len(places) - 1 - k + leading + place)
        found[piece.name] = stacked
    return found
