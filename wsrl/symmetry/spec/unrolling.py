"""Held axes told apart: one piece, and one permutation, for each element of an axis that something acts within.

Letters: L leading axes, C trailing axes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.spec.axes import Within
from wsrl.symmetry.spec.cutting import Piece
from wsrl.symmetry.spec.single_axis import PlainSpec

MAX_STACKED = 256
"""Largest number of elements of held axes of one tensor that are told apart."""


def unrolled_spec(pieces: Sequence[Piece], within: Within, held: Mapping[str, int]) -> PlainSpec:
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
        # one element for each index along the held axes of the piece
        held_dims = _held_dims(piece, held)
        num_elements = prod(piece.shape[dim] for dim in held_dims)
        if num_elements > MAX_STACKED:
            raise UserError(
                f"{piece.name} holds {num_elements} stacked networks",
                allowed=f"at most {MAX_STACKED}, each with permutations of its own",
                do="encode the networks of the stack as separate fields, or hold their hidden axes with fixed=(...)",
            )
        # its other axes, with a permutation of their own in each element that they act within
        kept = [dim for dim in range(len(piece.axes)) if dim not in held_dims]
        for name, index in _elements(piece, held):
            axes[name] = tuple(_renamed(piece.axes[dim], within, index) for dim in kept)
            shapes[name] = tuple(piece.shape[dim] for dim in kept)
            for own in [piece.axes[dim] for dim in kept if piece.axes[dim] is not None]:
                others = tuple(_renamed(p, within, index) for p in within.get(own, ()) if p not in held)
                parents[_renamed(own, within, index)] = others
    return PlainSpec(axes, shapes, {name: others for name, others in parents.items() if others})


def _held_dims(piece: Piece, held: Mapping[str, int]) -> list[int]:
    return [dim for dim, name in enumerate(piece.axes) if name in held]


def _elements(piece: Piece, held: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Names of what a piece is told apart into, each with the place along every held axis."""
    dims = _held_dims(piece, held)
    for indices in product(*(range(piece.shape[dim]) for dim in dims)):
        index = dict(zip([piece.axes[dim] for dim in dims], indices))
        text = ", ".join(f"{name}={number}" for name, number in index.items())
        yield (f"{piece.name}[{text}]" if text else piece.name), index


def _renamed(name: str | None, within: Within, index: Mapping[str, int]) -> str | None:
    """The permutation that stands for another at some place along the held axes that it acts within."""
    own = [parent for parent in within.get(name, ()) if parent in index]
    return f"{name}[{', '.join(f'{parent}={index[parent]}' for parent in own)}]" if own else name


def unroll(part: Tensor, piece: Piece, held: Mapping[str, int], leading: int) -> dict[str, Tensor]:
    """What a piece ``(L..., *shape, C...)`` is told apart into, without its held axes; views."""
    dims, elements = _held_dims(piece, held), {}
    for name, index in _elements(piece, held):
        element = part
        for dim in reversed(dims):
            element = element.select(leading + dim, index[piece.axes[dim]])
        elements[name] = element
    return elements


def rolled(
    parts: Mapping[str, Tensor], pieces: Sequence[Piece], held: Mapping[str, int], leading: int
) -> dict[str, Tensor]:
    """The pieces of which :func:`unroll` told elements apart; those of which one is missing are left out."""
    joined = {}
    for piece in pieces:
        names = [name for name, _ in _elements(piece, held)]
        dims = _held_dims(piece, held)
        if not all(name in parts for name in names):
            continue
        if not dims:
            joined[piece.name] = parts[piece.name]
            continue
        stacked = torch.stack([parts[name] for name in names])  # (elements, L..., *kept shape, C...)
        stacked = stacked.unflatten(0, [piece.shape[dim] for dim in dims])
        for k, dim in enumerate(dims):  # each goes to its place, in order; those behind it stay in front
            stacked = stacked.movedim(0, len(dims) - 1 - k + leading + dim)
        joined[piece.name] = stacked
    return joined
