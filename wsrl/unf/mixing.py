"""The last step of an equivariant layer: products of large features, sums of means, and the nonlinearity.

Letters: B networks, C channels in, D channels out, E numbers before the nonlinearity.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from wsrl.unf.basis import Pattern
from wsrl.unf.fused import can_fuse, fused_mix
from wsrl.unf.nonlinearity import Nonlinearity
from wsrl.unf.pooling import PooledTensor

Addends = dict[frozenset[int], Tensor]


class Form(NamedTuple):
    """How the kernel holds what varies along some axes.

    Attributes:
        name: Its argument and result.
        kept: The axes.
        pack: From an array with ones for the other axes to the kernel's.
        unpack: Back.
    """

    name: str
    kept: frozenset[int]
    pack: Callable[[Tensor], Tensor]
    unpack: Callable[[Tensor], Tensor]


def _without(name: str, kept: set[int], lost: int) -> Form:
    return Form(name, frozenset(kept), lambda array: array.squeeze(lost), lambda array: array.unsqueeze(lost))


FORMS = {
    2: (
        Form("by_pf", frozenset({0}), lambda array: array, lambda array: array),
        Form("by_qf", frozenset({1}), lambda array: array.transpose(1, 2), lambda array: array.transpose(1, 2)),
    ),
    3: (_without("by_pf", {0, 2}, 2), _without("by_qf", {1, 2}, 1), _without("by_pq", {0, 1}, 3)),
}


def mix(
    shape: tuple[int, ...],
    products: Sequence[tuple[Tensor, Tensor]],
    addends: Addends,
    diagonals: Sequence[tuple[Pattern, Tensor]],
    nonlinearity: Nonlinearity,
) -> PooledTensor:
    """Add up what goes to one tensor.

    Args:
        shape: Length of the axes of the tensor.
        products: Features ``(B, *shape, C)`` and matrices ``(C, E)`` by which they are multiplied.
        addends: By the axes along which they differ, arrays ``(B or 1, *axes, E)`` with ones elsewhere.
        diagonals: Values for the entries on some diagonal.
        nonlinearity: What comes last.

    Returns:
        Features ``(B, *shape, D)``.
    """
    addends = absorb(addends, len(shape))
    if len(shape) in (2, 3) and len(products) == 1 and not diagonals and frozenset(range(len(shape))) not in addends:
        values, weight = products[0]
        if can_fuse(values, weight, nonlinearity.gated):
            return _mix_fused(shape, values, weight, addends, nonlinearity)
    return PooledTensor(nonlinearity(_add_up(shape, products, addends, diagonals)))


def _add_up(shape, products, addends, diagonals) -> Tensor:
    """Everything but the rectifier, by torch."""
    parts = [_product(values, weight) for values, weight in products]
    parts += sorted(addends.values(), key=Tensor.numel, reverse=True)
    size = (max(len(part) for part in parts), *shape, parts[0].shape[-1])
    if parts[0].shape != size:
        parts[0] = parts[0].expand(size).clone()
    out = parts[0] if products or parts[0].shape != size else parts[0].clone()
    for part in parts[1:]:
        out.add_(part)
    for pattern, values in diagonals:
        pattern.add_to(out, values)
    return out


def _product(values: Tensor, weight: Tensor) -> Tensor:
    """``values (B, *axes, C)`` times ``(C, E)`` or ``(B, C, E)``."""
    if weight.ndim == 2:
        return values @ weight
    return (values.flatten(1, -2) @ weight).reshape(*values.shape[:-1], -1)


def _mix_fused(
    shape: tuple[int, ...], values: Tensor, weight: Tensor, addends: Addends, last: Nonlinearity
) -> PooledTensor:
    """By the kernel, which knows three axes P, Q and F; a matrix has an F of one element."""
    given: dict[str, Tensor | None] = {"by_pf": None, "by_qf": None, "by_pq": None}
    for axes, addend in addends.items():
        form = next(form for form in FORMS[len(shape)] if form.kept >= axes)
        size = (len(values), *(n if axis in form.kept else 1 for axis, n in enumerate(shape)), addend.shape[-1])
        packed = form.pack(addend.expand(size))
        given[form.name] = packed if given[form.name] is None else given[form.name] + packed
    mixed = fused_mix(values.unsqueeze(3) if len(shape) == 2 else values, weight, **given, nonlinearity=last)
    means = {form.kept: form.unpack(getattr(mixed, form.name)) for form in FORMS[len(shape)]}
    return PooledTensor(mixed.out.squeeze(3) if len(shape) == 2 else mixed.out, means, mixed.square)


def absorb(addends: Addends, num_axes: int) -> dict[frozenset[int], Tensor]:
    """Add every array to the smallest one that varies along its axes and more, so that fewer pass over all entries."""
    left = dict(addends)
    for axes in sorted(addends, key=len):
        wider = [other for other in left if other > axes and (len(other) < num_axes or num_axes < 2)]
        if wider:
            nearest = min(wider, key=lambda other: left[other].numel())
            left[nearest] = left[nearest] + left.pop(axes)
    return left
