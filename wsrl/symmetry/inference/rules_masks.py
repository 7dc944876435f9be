"""Rules of operations that choose entries by a mask; along what a mask tells apart nothing moves."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wsrl.symmetry.inference.reshape import narrow, view
from wsrl.symmetry.inference.rules_pointwise import in_order
from wsrl.symmetry.inference.solving import unify
from wsrl.symmetry.inference.terms import Axis, new_axis, resolve, size_of
from wsrl.symmetry.inference.trace import Call, UnfollowedError, rule

MASKS = (torch.bool, torch.uint8)


def masked_axis(call: Call, axes: Sequence[Axis], mask: Tensor, first: int, num: int) -> Axis:
    """The one axis of the entries that a mask chooses, in row-major order.

    Args:
        call: The operation.
        axes: Axes of the tensor whose entries are chosen.
        mask: Boolean mask of those from ``first`` on.
        first: Where the axes of the mask begin.
        num: Number of entries that are chosen.

    Returns:
        A fixed axis, times the last axes along which the mask does not change.
    """
    stop = first + mask.ndim
    own = call.table.get(mask)
    # the last axes along which the mask does not change move with those of the mask
    whole = stop
    while whole > first and _is_even(call, mask, whole - 1 - first):
        whole -= 1
    for axis, other in zip(axes[whole:stop], own[whole - first :]):
        if other:
            unify(axis, other)
    # along the others the order of the entries is that of their places
    in_order(own, range(whole - first))
    in_order(axes, range(first, whole))
    kept = tuple(atom for axis in axes[whole:stop] for atom in resolve(axis))
    return (*new_axis(num // size_of(kept), fixed=True), *kept)


def _is_even(call: Call, mask: Tensor, dim: int) -> bool:
    """Whether a mask does not change along an axis, whatever the weights and inputs are."""
    if mask.shape[dim] == 1 or mask.stride(dim) == 0:
        return True
    return not call.table.known(mask) and torch.equal(mask, mask.narrow(dim, 0, 1).expand_as(mask))


def _spread(mask: Tensor, like: Tensor, call: Call) -> Tensor:
    """A mask in the shape of a tensor, with the same axes where it had any."""
    if mask.shape == like.shape:
        return mask
    wide = mask.expand_as(like)
    if call.table.known(mask):
        axes = [()] * (like.ndim - mask.ndim) + call.table.get(mask)
        call.table.record(wide, [axis if axis or size == 1 else new_axis(size) for axis, size in zip(axes, like.shape)])
    return wide


@rule("masked_select")
def masked_select(call: Call) -> list[Axis]:
    """Entries that a mask chooses, in one axis."""
    if call["mask"].ndim > call["self"].ndim or torch.broadcast_shapes(call["mask"].shape, call["self"].shape) != (
        call["self"].shape
    ):
        raise UnfollowedError("the mask has more entries than what it chooses from")
    return [masked_axis(call, call.axes("self"), _spread(call["mask"], call["self"], call), 0, call.out_shape[0])]


@rule("masked_scatter")
def masked_scatter(call: Call) -> list[Axis]:
    """Entries that a mask chooses are replaced by others, in row-major order."""
    axes, mask = call.axes("self"), _spread(call["mask"], call["self"], call)
    num, source = int(mask.sum()), call["source"]
    target = masked_axis(call, axes, mask, 0, num)
    rows = num // size_of(target[1:]) if target and target[0].fixed else 1  # whole rows are taken from the source
    if num and source.numel() % (num // rows):
        raise UnfollowedError("the source is not made of whole rows of what is replaced")
    if num:
        taken = view(call.axes("source"), source.shape, [source.numel() // (num // rows), num // rows])
        first, inside = narrow(taken, 0, 0, rows)
        unify((*first, *inside), target)
    return [resolve(axis) for axis in axes]
