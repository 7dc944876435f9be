"""Permutations as index tensors: drawing, applying, inverting and composing them.

A permutation ``p`` moves ``x`` to ``y[i] = x[p[i]]``. One that acts within others has an index for each of their
elements, and ``y[h, c] = x[p_h[h], p_c[h, c]]``: its table is read at the new place ``h``.

Letters: N items with a permutation each, h an element of a parent, c an element within it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wsrl.symmetry.spec.axes import Within

Weights = Mapping[str, Tensor]
"""The tensors of a network by name."""
Permutation = Mapping[str, Tensor]
"""Index tensors by the name of a permutation."""


def parents_first(names: Sequence[str], within: Within) -> list[str]:
    """Names in an order in which every permutation follows those that it acts within."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        for parent in within.get(name, ()):
            visit(parent)
        ordered.setdefault(name)

    for name in names:
        visit(name)
    return list(ordered)


def draw(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Uniformly random permutations of the last axis, ``shape``."""
    device = generator.device if generator is not None else "cpu"
    keys = torch.rand(tuple(shape), generator=generator, device=device, dtype=torch.float64)
    return keys.argsort(-1)


def move(
    tensor: Tensor,
    axes: Sequence[str | None],
    permutation: Permutation,
    within: Within,
    leading: int,
    batched: bool,
) -> Tensor:
    """Apply permutations to a tensor of which every axis carries one or none.

    Args:
        tensor: ``(L..., *shape, C...)``.
        axes: What acts on each axis of ``shape``.
        permutation: Index tensors; with a leading axis N where ``batched``.
        within: What acts within what.
        leading: Number of leading axes; exactly the N of the permutations where ``batched``.
        batched: Whether every item has a permutation of its own.
    """
    present = [name for name in axes if name is not None]
    for name in [name for name in parents_first(present, within) if name in permutation]:
        for axis, carried in enumerate(axes):
            if carried == name:
                tensor = _move_axis(tensor, axes, axis, permutation[name], within.get(name, ()), leading, batched)
    return tensor


def _move_axis(tensor: Tensor, axes, axis: int, index: Tensor, parents, leading: int, batched: bool) -> Tensor:
    index = index.to(tensor.device)
    dim = leading + axis
    if not batched and not parents:
        return tensor.index_select(dim, index)
    # the axes of the tensor that those of the index stand beside: items, parents, elements
    beside = [*([0] if batched else []), *(leading + axes.index(parent) for parent in parents), dim]
    shape = [size if other in beside else 1 for other, size in enumerate(tensor.shape)]
    order = sorted(range(len(beside)), key=beside.__getitem__)
    index = index.permute(order).reshape(shape)  # as many axes as the tensor
    return tensor.gather(dim, index.expand(tensor.shape))


def inverted(permutation: Permutation, within: Within, batched: bool) -> dict:
    """The permutation that undoes another."""
    inverse: dict[str, Tensor] = {}
    for name in [name for name in parents_first(list(permutation), within) if name in permutation]:  # not the held
        table = permutation[name].argsort(-1)  # still at the old places of the parents
        parents = within.get(name, ())
        inverse[name] = move(table, (*parents, None), inverse, within, int(batched), batched) if parents else table
    return inverse


def composed(last: Permutation, first: Permutation, within: Within, batched: bool) -> dict[str, Tensor]:
    """The permutation that does ``first`` and then ``last``."""
    return {
        name: move(table, (*within.get(name, ()), name), last, within, int(batched), batched)
        for name, table in first.items()
    }
