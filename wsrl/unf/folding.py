"""How layers see a tensor: axes that carry permutations stay, short fixed axes become channels, long ones positions.

A fixed axis, such as the coordinates that a first layer reads, may be treated by any linear map. Where it is short that
is done: its elements are laid into the channels. Where it is long (784 inputs, the places of a kernel) it stays an axis
of its own, over which layers share their weights and which they pool like any other; its elements differ by the bias
of each position. Tensors with the same axes are laid side by side: a layer then has fewer and larger products.

Letters: B networks, C channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.symmetry.spec.single_axis import PlainSpec

LONGEST_FOLD = 4
"""Elements of all fixed axes of a tensor together that are still laid into the channels."""
WIDEST_BUNDLE = 8
"""Entries of a network that are laid side by side at most, so that a layer stays linear in the number of tensors."""


@dataclass(frozen=True)
class FoldedTensor:
    """One tensor with named axes alone.

    Attributes:
        name: Key of the tensor.
        axes: Permutation of each inner axis; a position axis has a name that no other tensor has.
        shape: Length of each inner axis.
        positions: Which inner axes are position axes.
        factor: Entries of a network that lie in the channels of one inner entry.
        order: Axes of the outer shape, those laid into the channels last.
        outer: Shape of the tensor.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    positions: tuple[bool, ...]
    factor: int
    order: tuple[int, ...]
    outer: tuple[int, ...]

    def fold(self, values: Tensor) -> Tensor:
        """``(B, *outer, C)`` as ``(B, *shape, factor * C)``."""
        moved = values.permute(0, *(axis + 1 for axis in self.order), values.ndim - 1)  # (B, *shape, *fixed, C)
        return moved.reshape(len(values), *self.shape, self.factor * values.shape[-1])  # (B, *shape, factor * C)

    def unfold(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`fold`."""
        channels = values.shape[-1] // self.factor
        moved = values.reshape(len(values), *(self.outer[axis] for axis in self.order), channels)
        return moved.permute(0, *(self.order.index(axis) + 1 for axis in range(len(self.outer))), moved.ndim - 1)


@dataclass(frozen=True)
class Bundle:
    """Tensors with the same inner axes, side by side in the channels: one tensor for the layers.

    Attributes:
        members: The tensors; one alone where it has position axes.
    """

    members: tuple[FoldedTensor, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """Permutation of each inner axis."""
        return self.members[0].axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each inner axis."""
        return self.members[0].shape

    @property
    def positions(self) -> tuple[bool, ...]:
        """Which inner axes are position axes."""
        return self.members[0].positions

    @property
    def factor(self) -> int:
        """Entries of a network that lie in the channels of one inner entry."""
        return sum(member.factor for member in self.members)

    def fold(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features ``(B, *outer, C)`` of the members as one array ``(B, *shape, factor * C)``."""
        parts = [member.fold(features[member.name]) for member in self.members]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def unfold(self, values: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`fold`."""
        parts = values.split([m.factor * (values.shape[-1] // self.factor) for m in self.members], dim=-1)
        return {member.name: member.unfold(part) for member, part in zip(self.members, parts)}


def bundle_tensors(spec: PlainSpec) -> dict[str, Bundle]:
    """Every tensor of a specification as layers see it, by the name of the first member of its bundle."""
    groups: dict[object, list[FoldedTensor]] = {}
    for name, axes in spec.axes.items():
        tensor = _fold_tensor(name, axes, tuple(spec.shapes[name]))
        key: object = tensor.axes
        while sum(member.factor for member in groups.get(key, [])) + tensor.factor > WIDEST_BUNDLE and key in groups:
            key = (key, "more")
        groups.setdefault(key, []).append(tensor)
    return {members[0].name: Bundle(tuple(members)) for members in groups.values()}


def _fold_tensor(name: str, axes: tuple[str | None, ...], shape: tuple[int, ...]) -> FoldedTensor:
    fixed = [index for index, axis in enumerate(axes) if axis is None]
    factor = math.prod(shape[index] for index in fixed)
    if factor <= LONGEST_FOLD:
        # Short: the fixed axes go last, into the channels.
        moved = [index for index, axis in enumerate(axes) if axis is not None]
        inner = [(axes[index], shape[index]) for index in moved]
        order, positions = (*moved, *fixed), (False,) * len(moved)
    else:
        # Long: they stay where they are, as positions.
        inner, order, factor = [], tuple(range(len(axes))), 1
        for index, (axis, size) in enumerate(zip(axes, shape)):
            if axis is not None:
                inner.append((axis, size))
            elif index and axes[index - 1] is None:  # neighbours, such as the two axes of a kernel, are one
                inner[-1] = (inner[-1][0], inner[-1][1] * size)
            else:
                inner.append((f"{name}/position {index}", size))
        positions = tuple("/position " in axis for axis, _ in inner)
    names, sizes = tuple(axis for axis, _ in inner), tuple(size for _, size in inner)
    return FoldedTensor(name, names, sizes, positions, factor, order, shape)
