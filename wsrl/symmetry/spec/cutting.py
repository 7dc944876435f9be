"""Cutting tensors until every axis carries one permutation or none, and putting them together again.

Letters: L leading axes, C trailing axes; those are never cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from math import prod

import torch
from torch import Tensor

from wsrl.symmetry.spec.axes import Axis, factors_of, part_size, parts_of


@dataclass(frozen=True)
class Piece:
    """One piece of a tensor.

    Attributes:
        name: Its name: that of the tensor, with the ranges it was cut from where it was cut.
        ranges: For each axis of the tensor the ``(start, stop)`` of the piece.
        axes: One permutation or None for each axis of the piece.
        shape: Lengths of those axes.
    """

    name: str
    ranges: tuple[tuple[int, int], ...]
    axes: tuple[str | None, ...]
    shape: tuple[int, ...]


def pieces_of(name: str, axes: Sequence[Axis], shape: Sequence[int], sizes: Mapping[str, int]) -> tuple[Piece, ...]:
    """Pieces of one tensor, in row-major order of the parts of its axes."""
    options = [_parts_with_ranges(axis, size, sizes) for axis, size in zip(axes, shape)]
    cut = [len(option) > 1 for option in options]
    pieces = []
    for choice in product(*options):
        ranges = tuple((start, stop) for _, start, stop in choice)
        plain = [plain for part, start, stop in choice for plain in _plain_factors(part, stop - start, sizes)]
        label = name
        if any(cut):
            texts = [f"{start}:{stop}" if is_cut else ":" for (start, stop), is_cut in zip(ranges, cut)]
            while texts[-1] == ":":
                texts.pop()
            label = f"{name}[{', '.join(texts)}]"
        pieces.append(Piece(label, ranges, tuple(p for p, _ in plain), tuple(s for _, s in plain)))
    return tuple(pieces)


def _parts_with_ranges(axis: Axis, size: int, sizes: Mapping[str, int]) -> list[tuple]:
    parts = parts_of(axis)
    lengths = [part_size(part, sizes) for part in parts] if len(parts) > 1 else [size]
    stops = list(accumulate(lengths))
    return [(part, stop - length, stop) for part, length, stop in zip(parts, lengths, stops)]


def _plain_factors(part, length: int, sizes: Mapping[str, int]) -> list[tuple[str | None, int]]:
    factors = factors_of(part)
    if len(factors) == 1:
        return [(factors[0] if isinstance(factors[0], str) else None, length)]
    return [(f, sizes[f]) if isinstance(f, str) else (None, f) for f in factors]


def split_tensor(tensor: Tensor, pieces: Sequence[Piece], leading: int) -> dict[str, Tensor]:
    """The pieces of a tensor ``(L..., *shape, C...)``, each ``(L..., *piece shape, C...)``; views where possible."""
    cut = {}
    for piece in pieces:
        part = tensor
        for axis, (start, stop) in enumerate(piece.ranges):
            part = part.narrow(leading + axis, start, stop - start)
        trailing = tensor.shape[leading + len(piece.ranges) :]
        cut[piece.name] = part.reshape((*tensor.shape[:leading], *piece.shape, *trailing))  # factors apart
    return cut


def join_tensor(parts: Mapping[str, Tensor], pieces: Sequence[Piece], leading: int) -> Tensor:
    """The tensor that :func:`split_tensor` cut."""
    num_axes = len(pieces[0].ranges)
    blocks = []
    for piece in pieces:
        part = parts[piece.name]
        trailing = part.shape[leading + len(piece.shape) :]
        lengths = [stop - start for start, stop in piece.ranges]
        assert prod(lengths) == prod(piece.shape), piece
        blocks.append((piece.ranges, part.reshape((*part.shape[:leading], *lengths, *trailing))))  # factors together
    for axis in reversed(range(num_axes)):  # the last axis varies fastest in the order of the pieces
        merged: dict[tuple, list[Tensor]] = {}
        for ranges, block in blocks:
            merged.setdefault(ranges[:axis], []).append(block)
        blocks = [
            (ranges, group[0] if len(group) == 1 else torch.cat(group, dim=leading + axis))
            for ranges, group in merged.items()
        ]
    return blocks[0][1]
