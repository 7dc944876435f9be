"""Reshaping, slicing and joining the axes of tensors, as terms."""

from collections.abc import Sequence
from itertools import accumulate

from wsrl.symmetry.inference.dividing import cut_at, divide
from wsrl.symmetry.inference.solving import cut, unify
from wsrl.symmetry.inference.terms import (
    Atom,
    Axis,
    concat,
    deep,
    family,
    fix,
    fixed_axes,
    new_axis,
    parents_of,
    resolve,
    size_of,
)

EXPLODED = 64
"""Longest axis whose elements are told apart when one of them is selected."""


def settle(axes: Sequence[Axis]) -> list[Axis]:
    """The axes of a tensor, once everything on it that acts within something has that beside it exactly once."""
    while True:
        axes = [resolve(axis) for axis in axes]
        top = [atom for axis in axes for atom in axis]
        lost = [pair for axis in axes for pair in _lost(axis, top, top)]
        if not lost:
            return axes
        for atom, parent in lost:
            if parent in parents_of(atom):
                cut(atom, parent)


def _lost(axis: Axis, beside: Sequence[Atom], top: Sequence[Atom]) -> list[tuple[Atom, Atom]]:
    """Atoms of an axis, or of a part of it, with each parent that does not stand beside them exactly once."""
    pairs = []
    for atom in axis:
        elsewhere = [inner for other in top if other.is_concat and other is not atom for inner in _inside(other)]
        bad = [p for p in parents_of(atom) if beside.count(p) != 1 or p in elsewhere]
        pairs += [(atom, parent) for parent in bad]
        if atom.is_concat:
            for part in atom.parts:
                inner = resolve(part)
                others = [other for other in top if other is not atom]
                pairs += _lost(inner, [*beside, *inner], others)
    return pairs


def _inside(whole: Atom) -> list[Atom]:
    """All atoms in the parts of a concatenation."""
    atoms = []
    for part in whole.parts:
        for atom in resolve(part):
            atoms += [atom, *(_inside(atom) if atom.is_concat else ())]
    return atoms


def cut_children(axes: Sequence[Axis], mixed: Sequence[Axis]) -> None:
    """End the dependence of what remains on what an operation mixes over."""
    over = {atom for axis in mixed for atom in resolve(axis)}
    for axis in axes:
        for atom in list(deep(axis)):
            for parent in [p for p in parents_of(atom) if p in over]:
                cut(atom, parent)


def cut_foreign(contracted: Axis, beside: Sequence[Axis]) -> None:
    """End the dependence of contracted atoms on all but each other and what stands beside them on both operands."""
    allowed = {atom for axis in (contracted, *beside) for atom in resolve(axis)}
    for atom in resolve(contracted):
        for parent in [p for p in parents_of(atom) if p not in allowed]:
            cut(atom, parent)


def view(axes: Sequence[Axis], old: Sequence[int], new: Sequence[int], labels=("heads", "channels")) -> list[Axis]:
    """Axes of a tensor of shape ``old`` in the shape ``new``, with the elements in the same row-major order."""
    reshaped: list[Axis] = []
    i = j = 0
    while i < len(old) or j < len(new):
        # the fewest next axes of both shapes that have as many elements
        atoms = list(axes[i]) if i < len(old) else []
        left = old[i] if i < len(old) else 1
        right = new[j] if j < len(new) else 1
        sizes = [new[j]] if j < len(new) else []
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                atoms, left, i = [*atoms, *axes[i]], left * old[i], i + 1
            else:
                sizes, right, j = [*sizes, new[j]], right * new[j], j + 1
        reshaped += distribute(atoms, sizes, labels)
    return reshaped


def distribute(atoms: Sequence[Atom], sizes: Sequence[int], labels: tuple[str, str]) -> list[Axis]:
    """Give the atoms of one axis to several, of the given lengths."""
    rest, axes = list(resolve(atoms)), []
    for size in sizes:
        # whole atoms while they fit; one that is too long is divided where that is possible
        taken: list[Atom] = []
        while size_of(taken) < size:
            wanted = size / size_of(taken)
            atom = rest.pop(0)
            if atom.size > wanted:
                halves = divide(atom, int(wanted), labels) if wanted == int(wanted) and wanted > 1 else None
                if halves is None:
                    fix(atoms)
                    return fixed_axes(sizes)
                rest = list(resolve([*halves, *rest]))
            else:
                taken.append(atom)
        if size_of(taken) != size:
            fix(atoms)
            return fixed_axes(sizes)
        axes.append(tuple(taken))
    return axes


def narrow(axes: Sequence[Axis], dim: int, start: int, stop: int) -> list[Axis]:
    """Axes of a tensor of which consecutive elements of one axis are left; what depends on them is left with them."""
    axes = [resolve(axis) for axis in axes]
    axis, size = axes[dim], size_of(axes[dim])
    if (start, stop) == (0, size):
        return list(axes)
    if all(atom.fixed for atom in axis) and not depends(axes, axis):
        return [*axes[:dim], new_axis(stop - start, fixed=True), *axes[dim + 1 :]]
    # cut the axis where the slice begins and ends
    points = [point for point in (start, stop) if 0 < point < size]
    if not cut_at(axis, points):
        cut_children([*axes[:dim], *axes[dim + 1 :]], [axis])
        return [*axes[:dim], new_axis(stop - start, fixed=True), *axes[dim + 1 :]]
    # of its outermost atom one part is left, and of families over it their members there
    axes = [resolve(axis) for axis in axes]
    head, *inner = axes[dim]
    scale = size_of(inner)
    kept = _Kept(head, start // scale, stop // scale)
    rest = [tuple(kept.restrict(atom) for atom in other) for other in (*axes[:dim], tuple(inner), *axes[dim + 1 :])]
    rest = [tuple(a for part in axis for a in part) for axis in rest]
    rest[dim] = (*kept.axis, *rest[dim])
    return [resolve(axis) for axis in rest]


def select(axes: Sequence[Axis], dim: int, index: int) -> list[Axis]:
    """Axes of a tensor of which one element of an axis is left; the axis is gone."""
    axes = [resolve(axis) for axis in axes]
    axis = axes[dim]
    size = size_of(axis)
    short = len(axis) == 1 and size <= EXPLODED and depends(axes, axis)
    if not short or not cut_at(axis, range(1, size)):
        fix(axis)
        others = [*axes[:dim], *axes[dim + 1 :]]
        cut_children(others, [axis])
        return [resolve(other) for other in others]
    narrowed = narrow(axes, dim, index, index + 1)
    return [*narrowed[:dim], *narrowed[dim + 1 :]]


def stack(operands: Sequence[Sequence[Axis]], dim: int) -> list[Axis]:
    """Axes of tensors of one shape side by side along a new axis, each of which may move on its own."""
    num = len(operands)
    operands = [[resolve(axis) for axis in axes] for axes in operands]
    if num > EXPLODED or num == 1:  # too many to be told apart: they move alike
        for axes in operands[1:]:
            for first, other in zip(operands[0], axes):
                unify(first, other)
        operands = [[resolve(axis) for axis in operands[0]]] * num
    over = new_axis(num, fixed=True)
    if any(len(set(aligned)) > 1 for aligned in zip(*operands)):
        cut_at(over, range(1, num))
    stacked = []
    for aligned in zip(*operands):
        if len(set(aligned)) == 1:
            stacked.append(aligned[0])
        else:
            stacked.append((family(aligned, over[0].parts, over[0], over),))
    return [*stacked[:dim], over, *stacked[dim:]]


def depends(axes: Sequence[Axis], axis: Axis) -> bool:
    """Whether something on one of some axes acts within the elements of an axis."""
    return any(parent in axis for other in axes for atom in other for parent in parents_of(atom))


class _Kept:
    """What is left of a concatenation, and of the families over it.

    Attributes:
        axis: The part that is left.
    """

    def __init__(self, whole: Atom, start: int, stop: int):
        self.whole, self.start, self.stop = whole, start, stop
        pieces = _overlaps(whole.parts, start, stop)
        self.axis = concat([self._of_part(whole.parts[k], lo, hi) for k, lo, hi in pieces])

    def _of_part(self, part: Axis, start: int, stop: int) -> Axis:
        return resolve(part) if (start, stop) == (0, size_of(part)) else narrow([part], 0, start, stop)[0]

    def restrict(self, atom: Atom) -> Axis:
        """What is left of an atom of the same tensor; one that cannot follow moves alike for all of the whole."""
        if self.whole not in parents_of(atom):
            return (atom,)
        left = self._members(atom)
        if left is not None and len(left) == 1:
            return resolve(left[0])
        # families over it need one axis that is a concatenation of as many parts
        parts = self.axis[0].parts if len(self.axis) == 1 and self.axis[0].is_concat else ()
        if left is None or len(parts) != len(left):
            cut(atom, self.whole)
            return resolve((atom,))
        others = [parent for parent in parents_of(atom) if parent is not self.whole]
        return (family(left, parts, self.axis[0], (*others, self.axis[0])),)

    def _members(self, atom: Atom) -> list[Axis] | None:
        """The members of a family over the whole for the parts that are left; None for others, or across a part."""
        if not atom.is_family or resolve((atom.over,)) != (self.whole,):
            return None
        members = []
        for k, start, stop in _overlaps(atom.parts, self.start, self.stop):
            part, member = resolve(atom.parts[k]), resolve(atom.members[k])
            if (start, stop) != (0, size_of(part)):
                if not part[0].is_concat or len(part) > 1:
                    return None
                inner = _Kept(part[0], start, stop)
                member = tuple(kept for each in member for kept in inner.restrict(each))
            members.append(member)
        return members


def _overlaps(parts: Sequence[Axis], start: int, stop: int) -> list[tuple[int, int, int]]:
    """Which parts an interval overlaps, and where in each."""
    stops = list(accumulate(map(size_of, parts)))
    inside = [(max(start - begin, 0), min(stop, end) - begin) for begin, end in zip([0, *stops], stops)]
    return [(k, low, high) for k, (low, high) in enumerate(inside) if low < high]
