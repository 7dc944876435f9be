"""The last step of an equivariant layer: products of large features, sums of means, and the nonlinearity.

Letters: B networks, C channels in, D channels out, E numbers before the nonlinearity.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor

from wsrl.unf.basis import Pattern
from wsrl.unf.fused import can_fuse, fused_mix
from wsrl.unf.nonlinearity import Nonlinearity
from wsrl.unf.pooling import PooledTensor

Addends = dict[frozenset[int], Tensor]


KERNEL_FORMS = {
    2: {"by_pf": frozenset({0}), "by_qf": frozenset({1})},
    3: {"by_pf": frozenset({0, 2}), "by_qf": frozenset({1, 2}), "by_pq": frozenset({0, 1})},
}
"""The kernel's arguments and results, and along which of two or three axes they vary."""


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
        addends: By the axes along which they differ, arrays ``(B or 1, *axes, E)``.
        diagonals: Values for the entries on some diagonal.
        nonlinearity: What comes last.

    Returns:
        Features ``(B, *shape, D)``.
    """
    addends = absorb(addends, len(shape))
    # One product without diagonals: the kernel does all in one pass.
    if len(shape) in (2, 3) and len(products) == 1 and not diagonals and frozenset(range(len(shape))) not in addends:
        values, weight = products[0]
        if can_fuse(values, weight, nonlinearity.gated):
            return _mix_fused(shape, values, weight, addends, nonlinearity)
    # Nothing but one sum of full size: only the nonlinearity is left.
    if not products and not diagonals and list(addends) == [frozenset(range(len(shape)))]:
        (values,) = addends.values()
        return PooledTensor(nonlinearity(values, fresh=False))
    return PooledTensor(nonlinearity(_add_up(shape, products, addends, diagonals)))


def _add_up(shape, products, addends, diagonals) -> Tensor:
    """Everything but the rectifier, by torch."""
    parts = [_product(values, weight) for values, weight in products]  # (B, *shape, E) each
    for axes in sorted(addends, key=lambda axes: addends[axes].numel(), reverse=True):
        parts.append(_spread(addends[axes], axes, range(len(shape))))
    # The first part, which is ours alone, takes the sum.
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
    return (values.flatten(1, -2) @ weight).reshape(*values.shape[:-1], -1)  # (B, *axes, E)


def _mix_fused(
    shape: tuple[int, ...], values: Tensor, weight: Tensor, addends: Addends, last: Nonlinearity
) -> PooledTensor:
    """By the kernel."""
    # Each sum under the argument of the kernel that varies along its axes, filled up to the shape of that argument.
    forms, sums = KERNEL_FORMS[len(shape)], {}
    for axes, addend in addends.items():
        name, kept = next((name, kept) for name, kept in forms.items() if kept >= axes)
        addend = _spread(addend, axes, sorted(kept))
        sums[name] = sums[name] + addend if name in sums else addend
    for name, addend in sums.items():
        sums[name] = addend.expand(len(values), *(shape[axis] for axis in sorted(forms[name])), addend.shape[-1])
    mixed = fused_mix(values, weight, nonlinearity=last, **sums)
    return PooledTensor(mixed.out, {kept: getattr(mixed, name) for name, kept in forms.items()}, mixed.square)


def _spread(addend: Tensor, axes: frozenset[int], wider: Iterable[int]) -> Tensor:
    """An array that varies along some axes, with ones for the others of more, which are sorted."""
    for index, axis in enumerate(wider):
        if axis not in axes:
            addend = addend.unsqueeze(index + 1)
    return addend


def absorb(addends: Addends, num_axes: int) -> dict[frozenset[int], Tensor]:
    """Add every array to the smallest one that varies along its axes and more, so that fewer pass over all entries."""
    left = dict(addends)
    for axes in sorted(addends, key=len):
        wider = [other for other in left if other > axes and (len(other) < num_axes or num_axes < 2)]
        if wider:
            nearest = min(wider, key=lambda other: left[other].numel())
            left[nearest] = left[nearest] + _spread(left.pop(axes), axes, sorted(nearest))
    return left
