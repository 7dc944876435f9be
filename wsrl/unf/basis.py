"""The linear maps between weight tensors that commute with all permutations: their basis, one term per valid partition.

A term is a partition of the axes of the output and of the input into blocks; the axes of a block are acted on by one
permutation and share one index. Blocks of input axes alone are averaged, blocks of output axes alone are filled with
copies, mixed blocks carry an index over. So a term is a :class:`Pattern` of the input, which pools, and a pattern of
the output, which spreads, that keep the same blocks: all terms are found by meeting patterns of equal :attr:`key`.

Letters: B networks, C channels. Features are ``(B, *axes, C)``.

Source: Zhou, Finn and Harrison, Universal Neural Functionals, NeurIPS 2024, arXiv 2402.05232, section 3.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from wsrl.symmetry.spec.axes import Within

Axes = Sequence[str]
Key = tuple[tuple[str, tuple[int, ...]], ...]


def valid_partitions(out_axes: Axes, in_axes: Axes, within: Within | None = None) -> list[tuple[int, ...]]:
    """Every partition of output and input axes whose blocks hold axes of one permutation.

    Args:
        out_axes: Permutation of each output axis.
        in_axes: Permutation of each input axis.
        within: Parents of the permutations that act inside the elements of others: two axes of such a permutation may
            share a block only where the axes of their parents do.

    Returns:
        The block of each axis, those of the output first; blocks are counted in the order in which they appear.
    """
    axes, within = (*out_axes, *in_axes), within or {}
    parents = [*_parents(out_axes, within), *_parents(in_axes, within, len(out_axes))]
    return list(_grow(axes, parents, ()))


def _parents(axes: Axes, within: Within, offset: int = 0) -> list[tuple[int, ...]]:
    """For each axis the places of its parents: of several axes of a parent, the nearest one before it."""
    parents_of_axes = []
    for index, axis in enumerate(axes):
        indices = [[i for i, other in enumerate(axes) if other == parent] for parent in within.get(axis, ())]
        parents_of_axes.append(tuple(offset + max((i for i in each if i < index), default=each[0]) for each in indices))
    return parents_of_axes


def _grow(axes: Axes, parents: list[tuple[int, ...]], labels: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(labels) == len(axes):
        if all(_together(labels, parents, i, j) for i, j in itertools.combinations(range(len(axes)), 2)):
            yield labels
        return
    index = len(labels)
    fitting = {label for label, axis in zip(labels, axes) if axis == axes[index]}
    for label in (*sorted(fitting), max(labels, default=-1) + 1):
        yield from _grow(axes, parents, (*labels, label))


def _together(labels: tuple[int, ...], parents: list[tuple[int, ...]], i: int, j: int) -> bool:
    """Whether two axes, if they share a block, also share those of their parents."""
    return labels[i] != labels[j] or all(labels[a] == labels[b] for a, b in zip(parents[i], parents[j]))


@dataclass(frozen=True)
class Pattern:
    """One side of a term: how the axes of a tensor form blocks, and which of these the other side has too.

    Attributes:
        axes: Permutation of each axis.
        labels: Block of each axis.
        kept: Blocks with an index on the other side, in the order in which both sides hold them.
        parents: Places of the parents of each axis.
    """

    axes: tuple[str, ...]
    labels: tuple[int, ...]
    kept: tuple[int, ...]
    parents: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> Key:
        """Permutation of every kept block, with the places of its parents among them; equal keys can be joined."""
        return tuple(
            (self.axes[index], tuple(self.kept.index(self.labels[parent]) for parent in self.parents[index]))
            for index in self.kept_axes
        )

    @cached_property
    def is_simple(self) -> bool:
        """Whether no two axes share a block."""
        return len(set(self.labels)) == len(self.labels)

    @cached_property
    def is_whole(self) -> bool:
        """Whether every axis is kept apart, so that nothing is pooled."""
        return self.is_simple and len(self.kept) == len(self.labels)

    @cached_property
    def kept_axes(self) -> tuple[int, ...]:
        """First axis of every kept block."""
        return tuple(self.labels.index(block) for block in self.kept)

    @cached_property
    def kept_set(self) -> frozenset[int]:
        """The same axes, as a set."""
        return frozenset(self.kept_axes)

    @cached_property
    def _order(self) -> tuple[int, ...] | None:
        """The kept blocks in the order of their first axes; None where they have it."""
        order = sorted(range(len(self.kept)), key=lambda index: self.kept_axes[index])
        return None if order == list(range(len(order))) else tuple(order)

    @cached_property
    def _filled(self) -> tuple[int, ...]:
        """Places among the blocks, in the order of their first axes, of those that are not kept."""
        return tuple(index for index, block in enumerate(dict.fromkeys(self.labels)) if block not in self.kept)

    def in_order(self, values: Tensor) -> Tensor:
        """``values (B, *kept, C)`` with the kept blocks in the order of their first axes."""
        if self._order is None:
            return values
        return values.permute(0, *(index + 1 for index in self._order), values.ndim - 1)

    def from_order(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`in_order`."""
        if self._order is None:
            return values
        return values.permute(0, *(self._order.index(index) + 1 for index in range(len(self.kept))), values.ndim - 1)

    def diagonal(self, values: Tensor) -> Tensor:
        """View of ``values (B, *axes, C)`` with one axis a block, in the order of the blocks' first axes."""
        labels = list(self.labels)
        index = 0
        while index < len(labels):
            later = [i for i in range(index + 1, len(labels)) if labels[i] == labels[index]]
            if later:
                values = values.diagonal(dim1=index + 1, dim2=later[0] + 1).movedim(-1, index + 1)
                del labels[later[0]]
            else:
                index += 1
        return values

    def pool(self, values: Tensor) -> Tensor:
        """Mean over the blocks that are not kept: ``(B, *axes, C)`` becomes ``(B, *kept, C)``."""
        blocks = list(dict.fromkeys(self.labels))
        values = self.diagonal(values)  # (B, *blocks, C)
        lost = [index + 1 for index, block in enumerate(blocks) if block not in self.kept]
        if lost:
            values = values.mean(dim=lost)  # (B, *kept in the order of their first axes, C)
        left = [block for block in blocks if block in self.kept]
        return values.permute(0, *(left.index(block) + 1 for block in self.kept), len(left) + 1)  # (B, *kept, C)

    def broadcastable(self, values: Tensor) -> Tensor:
        """View of ``values (B, *kept, C)`` that broadcasts to one axis a block, in the order of their first axes."""
        values = self.in_order(values)
        for index in self._filled:
            values = values.unsqueeze(index + 1)
        return values

    def add_to(self, out: Tensor, values: Tensor) -> Tensor:
        """Add ``values (B, *kept, C)`` to ``out (B, *axes, C)``, in place, wherever the axes of each block agree."""
        self.diagonal(out).add_(self.broadcastable(values))
        return out


def patterns(axes: Axes, within: Within | None = None, *, orders: bool = False) -> list[Pattern]:
    """The patterns of one side.

    Args:
        axes: Permutation of each axis.
        within: Parents of permutations.
        orders: Also list the orders of the kept blocks that differ only in blocks of one permutation, such as a matrix
            and its transpose. One side of the terms needs them, the other must not have them.

    Returns:
        Patterns from the one that keeps most blocks to the one that keeps none; the blocks of each in sorted order of
        their permutations, then of the axes.
    """
    axes, sides = tuple(axes), []
    parents = tuple(_parents(axes, within or {}))
    for labels in valid_partitions((), axes, within):
        blocks = range(len(set(labels)))
        for count in range(len(blocks), -1, -1):
            for kept in itertools.combinations(blocks, count):
                if _is_closed(labels, parents, kept):
                    sides += _orders(Pattern(axes, labels, kept, parents), all_of_them=orders)
    return sorted(sides, key=lambda pattern: -len(pattern.kept))


def _is_closed(labels: tuple[int, ...], parents: tuple[tuple[int, ...], ...], kept: tuple[int, ...]) -> bool:
    """Whether the parents of every kept block are kept."""
    return all(
        labels[parent] in kept for index, block in enumerate(labels) if block in kept for parent in parents[index]
    )


def _orders(pattern: Pattern, all_of_them: bool) -> list[Pattern]:
    """The pattern with its kept blocks in every order that has the smallest key, or in the first one of these."""
    every = [
        Pattern(pattern.axes, pattern.labels, order, pattern.parents) for order in itertools.permutations(pattern.kept)
    ]
    smallest = min(candidate.key for candidate in every)
    fitting = [candidate for candidate in every if candidate.key == smallest]
    return fitting if all_of_them else fitting[:1]


def terms(out_axes: Axes, in_axes: Axes, within: Within | None = None) -> list[tuple[Pattern, Pattern]]:
    """All basis terms as pairs of the pattern that spreads over the output and the one that pools the input.

    They are as many as :func:`valid_partitions`, and stand for the same maps up to the scale of the averages.
    """
    into = patterns(in_axes, within, orders=True)
    return [(out, pooled) for out in patterns(out_axes, within) for pooled in into if out.key == pooled.key]
